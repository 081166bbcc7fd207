package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profile takes CPU profiles of the sidecars while a load runs, in the first
// round if profiles were asked for. The returned function waits for them.
func (b *bench) profile(ctx context.Context, phase string, lasting time.Duration, sidecars ...*sidecar) (wait func()) {
	if b.plan.profileDir == "" || b.round != 1 {
		return func() {}
	}
	var taking sync.WaitGroup
	for _, s := range sidecars {
		taking.Go(func() {
			path := filepath.Join(b.plan.profileDir, phase+"-"+s.service+".pprof")
			if err := takeProfile(ctx, s.adminURL(), path, lasting); err != nil {
				b.say("no profile of %s: %v", s.service, err)
			}
		})
	}
	return taking.Wait
}

func takeProfile(ctx context.Context, admin, path string, lasting time.Duration) error {
	url := fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", admin, max(1, int(lasting.Seconds())))
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, answer.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
