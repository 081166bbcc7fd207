package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// measureBacklog kills a publisher whose subscriber is away, with many events
// behind it, and measures from the execution of a new process to its first
// ready answer.
func (b *bench) measureBacklog(ctx context.Context) (err error) {
	p, err := b.startPair(ctx)
	defer func() { err = errors.Join(err, p.remove()) }()
	if err != nil {
		return err
	}
	if err := p.subscriber.stop(); err != nil {
		return err
	}
	perKill := b.plan.backlog / 100 // so that every kill finds fresh writes in the log
	for kill := range b.plan.kills {
		count := perKill
		if kill == 0 {
			count = b.plan.backlog
		}
		if err := b.refill(ctx, p, count, kill == 0); err != nil {
			return err
		}
		if err := p.publisher.kill(); err != nil {
			return err
		}
		took, err := p.publisher.start(ctx)
		if err != nil {
			return err
		}
		b.results.add(ratioReady, took.Seconds())
		b.say("ready %v after kill -9", took)
		if err := b.checkKnown(ctx, p.publisher, mark{run: b.runs, seq: count - 1}); err != nil {
			return err
		}
	}
	return nil
}

// checkKnown fails if the sidecar does not know the event that it acknowledged last.
func (b *bench) checkKnown(ctx context.Context, s *sidecar, m mark) error {
	url := s.appURL() + "/outbox/events/" + string(appendID(nil, m))
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(ask)
	if err != nil {
		return err
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("an acknowledged event is not known after the kill: %s: %s", url, answer.Status)
	}
	return nil
}

// refill publishes count events that nobody takes.
func (b *bench) refill(ctx context.Context, p pair, count int64, record bool) error {
	b.runs++
	ld := load{
		url: p.publisher.appURL() + "/outbox/batch", run: b.runs, conns: batchConns, batch: batchEvents,
		events: count, lasting: 5 * time.Minute,
	}
	got, err := ld.send(ctx, newLedger())
	if err != nil {
		return err
	}
	if got.accepted < count {
		return fmt.Errorf("only %d of %d events were accepted: %s", got.accepted, count, got.refusal)
	}
	if record {
		b.results.add(figRefill, got.perSecond())
		b.say("%d events behind, %.0f/s", count, got.perSecond())
	}
	return nil
}
