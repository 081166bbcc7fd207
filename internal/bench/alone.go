package main

import (
	"context"
	"errors"
	"os"
)

// measureAlone measures accepting where nobody subscribes: one sidecar, no peer.
func (b *bench) measureAlone(ctx context.Context) (err error) {
	if !b.plan.wants("g1", "g3") {
		return nil
	}
	s, err := b.newSidecar("bench-alone")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(), os.RemoveAll(s.dir)) }()
	if _, err := s.start(ctx); err != nil {
		return err
	}
	if b.plan.wants("g1") {
		b.runs++ // no sink will see it, but ids must be new
		stop := b.profile(ctx, "alone", b.plan.single, s)
		got, err := b.flood(ctx, s, newLedger(), 1)
		stop()
		if err != nil {
			return err
		}
		b.results.add(figAlone, got.perSecond())
		b.results.add(figAloneP50, milliseconds(quantile(got.latency, 0.5)))
		b.results.add(figAloneP99, milliseconds(quantile(got.latency, 0.99)))
		b.say("alone, c = 64: %.0f/s", got.perSecond())
	}
	if b.plan.wants("g3") {
		b.runs++
		stop := b.profile(ctx, "alone-batch", b.plan.batch, s)
		got, err := b.flood(ctx, s, newLedger(), batchEvents)
		stop()
		if err != nil {
			return err
		}
		b.results.add(figAloneBatch, got.perSecond())
		b.say("alone, batches: %.0f/s", got.perSecond())
	}
	return nil
}

// flood posts as fast as answers come, single events or batches, as run b.runs.
func (b *bench) flood(ctx context.Context, s *sidecar, l *ledger, batch int) (sent, error) {
	ld := load{
		url: s.appURL() + "/outbox", run: b.runs, conns: fastConns, batch: 1,
		events: maxLoadCount, lasting: b.plan.single,
	}
	if batch > 1 {
		ld.url, ld.conns, ld.batch, ld.lasting = s.appURL()+"/outbox/batch", batchConns, batch, b.plan.batch
	}
	got, err := ld.send(ctx, l)
	if err != nil {
		return sent{}, err
	}
	return got, b.checkSent(s.service, got)
}

func (b *bench) newSidecar(service string, more ...string) (*sidecar, error) {
	s, err := newSidecar(b.binary, b.dir, service, more...)
	if s != nil {
		s.pprof = b.plan.profileDir != ""
	}
	return s, err
}
