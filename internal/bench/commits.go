package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// commits are what a sidecar's store says of its commits since it started.
type commits struct {
	count float64
	took  time.Duration // all together
}

func (c commits) sub(o commits) commits { return commits{c.count - o.count, c.took - o.took} }

// mean returns the time of one commit.
func (c commits) mean() time.Duration { return time.Duration(float64(c.took) / max(1, c.count)) }

// commits reads the sidecar's metrics.
func (s *sidecar) commits(ctx context.Context) (commits, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, s.adminURL()+"/metrics", nil)
	if err != nil {
		return commits{}, err
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		return commits{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return commits{}, err
	}
	return parseCommits(string(text))
}

func parseCommits(text string) (commits, error) {
	const name = "hooksidecar_store_sync_seconds"
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(series, name) {
			values[series], _ = strconv.ParseFloat(value, 64) // what is no number shows as a series that is missing
		}
	}
	count, sum := values[name+"_count"], values[name+"_sum"]
	if count == 0 || sum == 0 {
		return commits{}, fmt.Errorf("metrics: no %s", name)
	}
	return commits{count: count, took: time.Duration(sum * float64(time.Second))}, nil
}
