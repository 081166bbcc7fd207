package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// identityKey is where the store keeps what this node once decided.
var identityKey = []byte("a")

const identityVersion = 1 // first byte of the record

// An identity is what a node has decided once and must not decide anew at the next start.
type identity struct {
	Instance string `json:"instance"`
	// Since tells of each pattern that is subscribed to when that began. Kept per pattern and not per list, so that a pattern
	// added to a list does not make the others younger: publishers would take what they owe for settled.
	Since map[string]time.Time `json:"since"`
	// Version of the descriptor, and the content that it stands for.
	Version uint64          `json:"version"`
	Content json.RawMessage `json:"content,omitempty"`
}

// settleIdentity reads the identity, brings it up to date with the settings and keeps it before anybody hears of it. content
// makes what is announced, apart from what differs at every start; a change of it raises the version.
func settleIdentity(ctx context.Context, st *store.Store, c config.Config, content func(identity) ([]byte, error)) (identity, error) {
	var id identity
	var before []byte
	err := st.View(func(sn *store.Snapshot) (err error) {
		before, _, err = sn.Get(identityKey)
		return err
	})
	if err == nil {
		id, err = parseIdentity(before)
	}
	if err != nil {
		return identity{}, fmt.Errorf("read identity: %w", err)
	}
	id.update(c, time.Now())
	text, err := content(id)
	if err != nil {
		return identity{}, err
	}
	if string(text) != string(id.Content) {
		id.Version, id.Content = id.Version+1, text
	}
	record, err := json.Marshal(id)
	if err != nil {
		return identity{}, err
	}
	record = append([]byte{identityVersion}, record...)
	if string(record) == string(before) {
		return id, nil // a node whose disk is full can still start
	}
	err = st.Commit(ctx, store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		tx.Put(identityKey, record)
		return nil
	}})
	if err != nil {
		return identity{}, fmt.Errorf("keep identity: %w", err)
	}
	return id, nil
}

// parseIdentity reads a record; none is an identity that has decided nothing.
func parseIdentity(record []byte) (id identity, err error) {
	if record == nil {
		return id, nil
	}
	if len(record) == 0 || record[0] != identityVersion {
		return id, store.ErrNewerFormat
	}
	return id, json.Unmarshal(record[1:], &id)
}

func (id *identity) update(c config.Config, now time.Time) {
	switch {
	case c.Instance != "":
		id.Instance = c.Instance
	case id.Instance == "":
		id.Instance = hostInstance()
	}
	before := id.Since
	id.Since = map[string]time.Time{}
	for _, s := range c.App.Subscriptions {
		for _, pattern := range s.Types {
			if strings.HasPrefix(pattern, "!") {
				continue
			}
			since, ok := before[pattern]
			if !ok {
				since = now.UTC()
			}
			id.Since[pattern] = since
		}
	}
}

// subscriptions returns what to announce: the patterns of one subscription that began together go together, each time with all
// of what the subscription excludes.
func (id *identity) subscriptions(c config.Config) []event.Subscription {
	all := []event.Subscription{}
	for _, s := range c.App.Subscriptions {
		var began []time.Time
		wanted := map[time.Time][]string{}
		var excluded []string
		for _, pattern := range s.Types {
			if strings.HasPrefix(pattern, "!") {
				excluded = append(excluded, pattern)
				continue
			}
			since := id.Since[pattern]
			if wanted[since] == nil {
				began = append(began, since)
			}
			wanted[since] = append(wanted[since], pattern)
		}
		for _, since := range began {
			all = append(all, event.Subscription{Types: slices.Concat(wanted[since], excluded), Since: since, From: s.From})
		}
	}
	return all
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// hostInstance makes an instance name of the host name.
func hostInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	name := strings.Trim(notInName.ReplaceAllString(host, "-"), "-")
	if name == "" || name[0] < 'a' {
		name = strings.TrimSuffix("host-"+name, "-")
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-")
}
