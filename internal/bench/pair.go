package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

const (
	publisherName  = "bench-orders"
	subscriberName = "bench-payments"
)

// A pair is a publisher and its one subscriber, whose app is the sink.
type pair struct {
	publisher, subscriber *sidecar
}

// startPair returns once an event has gone all the way.
func (b *bench) startPair(ctx context.Context) (p pair, err error) {
	if p.publisher, err = b.newSidecar(publisherName); err != nil {
		return p, err
	}
	p.subscriber, err = b.newSidecar(subscriberName, "--app-url", b.sink.url(),
		"--subscribe", "bench.*", "--peer", p.publisher.peerURL())
	if err != nil {
		return p, err
	}
	for _, s := range p.both() {
		if _, err := s.start(ctx); err != nil {
			return p, err
		}
	}
	return p, b.awaitDelivery(ctx, p)
}

// awaitDelivery posts an event every 100 ms until the publisher knows its
// subscriber, then waits until all of them have arrived: a subscriber is owed
// what was published since it subscribed, not since the publisher heard of it.
func (b *bench) awaitDelivery(ctx context.Context, p pair) error {
	run, l := b.newRun()
	c, err := newClient(p.publisher.appURL() + "/outbox")
	if err != nil {
		return err
	}
	defer c.close()
	render := newRenderer(uint64(run))
	for seq := range int64(300) {
		status, err := c.post(render.event(nil, mark{run: run, seq: seq, turn: seq + 1, due: time.Now().UnixNano()}))
		if err != nil || status/100 != 2 {
			return fmt.Errorf("first event: %d %w %s", status, err, c.answer.body)
		}
		l.accept(seq, 1)
		if bytes.Contains(c.answer.body, []byte(subscriberName)) {
			return b.drain(ctx, l)
		}
		if !sleepUntil(ctx, time.Now().Add(100*time.Millisecond)) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s did not learn of its subscriber\n%s\n%s", publisherName, p.publisher.lastLog(), p.subscriber.lastLog())
}

func (p pair) both() []*sidecar { return []*sidecar{p.publisher, p.subscriber} }

// remove stops both and deletes what they wrote.
func (p pair) remove() error {
	var errs []error
	for _, s := range p.both() {
		if s != nil {
			errs = append(errs, s.stop(), os.RemoveAll(s.dir))
		}
	}
	return errors.Join(errs...)
}

func (p pair) usage() (usage, error) {
	var sum usage
	for _, s := range p.both() {
		u, err := usageOf(s.pid())
		if err != nil {
			return usage{}, fmt.Errorf("%s: %w\n%s", s.service, err, s.lastLog())
		}
		sum = sum.add(u)
	}
	return sum, nil
}

// memory returns the own memory of each in MB.
func (p pair) memory() ([]float64, error) {
	var mb []float64
	for _, s := range p.both() {
		n, err := anonymousBytes(s.pid())
		if err != nil {
			return nil, err
		}
		mb = append(mb, float64(n)/1e6)
	}
	return mb, nil
}

// measurePair runs the pair idle, at the fixed rate, at full speed with single
// events, and with batches, in that order, so that the low figures are not those
// of a store that still compacts.
func (b *bench) measurePair(ctx context.Context) (err error) {
	if !b.plan.wants("g1", "g2", "g3", "g4", "g5", "g6", "g7", "g12") {
		return nil
	}
	p, err := b.startPair(ctx)
	defer func() { err = errors.Join(err, p.remove()) }()
	if err != nil {
		return err
	}
	if b.plan.wants("g4", "g6", "g7", "g12") {
		if err := b.measureIdle(ctx, p); err != nil {
			return err
		}
		if err := b.measureRate(ctx, p); err != nil {
			return err
		}
	}
	if b.plan.wants("g1", "g2", "g5", "g12") {
		if err := b.measureSingles(ctx, p); err != nil {
			return err
		}
	}
	if b.plan.wants("g3", "g12") {
		return b.measureBatches(ctx, p)
	}
	return nil
}

func (b *bench) measureIdle(ctx context.Context, p pair) error {
	if !sleepUntil(ctx, time.Now().Add(b.plan.settling)) {
		return ctx.Err()
	}
	mb, err := p.memory()
	if err != nil {
		return err
	}
	b.results.add(ratioIdle, slices.Max(mb))
	b.say("idle: %.0f MB", mb)
	return nil
}

// measureRate holds 1,000 events a second. Latencies count from when an event
// was due, so that a stall is not hidden by the posts that it held up.
func (b *bench) measureRate(ctx context.Context, p pair) error {
	run, warming := b.newRun()
	ld := load{
		url: p.publisher.appURL() + "/outbox", run: run, conns: rateConns, batch: 1,
		rate: fixedRate, events: int64(fixedRate * b.plan.warm.Seconds()), lasting: 2 * b.plan.warm,
	}
	if _, err := ld.send(ctx, warming); err != nil {
		return err
	}
	if err := b.drain(ctx, warming); err != nil {
		return err
	}
	before, err := p.usage()
	if err != nil {
		return err
	}
	peak := samplePeak(p)
	stop := b.profile(ctx, "rate", b.plan.rate, p.both()...)
	var l *ledger
	ld.run, l = b.newRun()
	ld.events, ld.lasting = int64(fixedRate*b.plan.rate.Seconds()), 2*b.plan.rate
	got, err := ld.send(ctx, l)
	stop()
	if err == nil {
		err = b.drain(ctx, l)
	}
	memory := peak()
	after, usageErr := p.usage()
	if err = errors.Join(err, usageErr, b.checkSent("1,000/s", got)); err != nil {
		return err
	}
	b.addRate(got, l, after.sub(before), memory)
	return nil
}

func (b *bench) addRate(got sent, l *ledger, used usage, memory float64) {
	latency := l.sortedLatency()
	p50, p99 := quantile(latency, 0.5), quantile(latency, 0.99)
	b.results.add(figRateAnswer50, milliseconds(quantile(got.latency, 0.5)))
	b.results.add(figRateAnswer99, milliseconds(quantile(got.latency, 0.99)))
	b.results.add(figRateP50, milliseconds(p50))
	b.results.add(figRateP99, milliseconds(p99))
	b.results.add(figRateWritten, float64(used.written)/float64(got.accepted*eventBytes))
	b.results.add(ratioCPU, used.cpu.Seconds()/float64(got.accepted)*10_000)
	b.results.add(ratioMemory, memory)
	if held := got.perSecond(); held < 0.98*fixedRate {
		b.results.note("round %d: 1,000/s were not held, only %.0f", b.round, held)
	}
	b.say("1,000/s: end to end %v / %v, %.1f CPU s, %.0f MB", p50, p99, used.cpu.Seconds(), memory)
}

// A reading is what a pair has used and done since it started.
type reading struct {
	usage                 usage
	publisher, subscriber commits
}

func (p pair) read(ctx context.Context) (r reading, err error) {
	if r.usage, err = p.usage(); err != nil {
		return r, err
	}
	if r.publisher, err = p.publisher.commits(ctx); err != nil {
		return r, err
	}
	r.subscriber, err = p.subscriber.commits(ctx)
	return r, err
}

func (b *bench) measureSingles(ctx context.Context, p pair) error {
	before, err := p.read(ctx)
	if err != nil {
		return err
	}
	_, l := b.newRun()
	stop := b.profile(ctx, "pair", b.plan.single, p.both()...)
	begun := time.Now()
	got, err := b.flood(ctx, p.publisher, l, 1)
	stop()
	if err != nil {
		return err
	}
	if err := b.drain(ctx, l); err != nil {
		return err
	}
	if !sleepUntil(ctx, time.Now().Add(time.Second)) { // what rides along later was written for these events too
		return ctx.Err()
	}
	after, err := p.read(ctx)
	if err != nil {
		return err
	}
	mb, err := p.memory()
	if err != nil {
		return err
	}
	b.results.add(figDelivered, l.arrivedPerSecond(begun))
	b.results.add(figBurstMemory, mb[0]+mb[1])
	b.addSingles(got, before, after)
	b.say("pair, c = 64: %.0f accepted/s, %.0f delivered/s", got.perSecond(), l.arrivedPerSecond(begun))
	return nil
}

func (b *bench) addSingles(got sent, before, after reading) {
	events := float64(got.accepted)
	used := after.usage.sub(before.usage)
	publisher, subscriber := after.publisher.sub(before.publisher), after.subscriber.sub(before.subscriber)
	b.results.add(figPair, got.perSecond())
	b.results.add(figPairP50, milliseconds(quantile(got.latency, 0.5)))
	b.results.add(figPairP99, milliseconds(quantile(got.latency, 0.99)))
	b.results.add(figPairCPU, used.cpu.Seconds()/events*10_000)
	b.results.add(ratioWritten, float64(used.written)/(events*eventBytes))
	b.results.add(figPairCommits, events/max(1, publisher.count))
	b.results.add(figPairSyncTime, milliseconds(publisher.mean()))
	b.results.add(figInboxCommits, events/max(1, subscriber.count))
	b.results.add(figInboxSync, milliseconds(subscriber.mean()))
}

func (b *bench) measureBatches(ctx context.Context, p pair) error {
	_, l := b.newRun()
	stop := b.profile(ctx, "pair-batch", b.plan.batch, p.both()...)
	begun := time.Now()
	got, err := b.flood(ctx, p.publisher, l, batchEvents)
	stop()
	if err != nil {
		return err
	}
	if err := b.drain(ctx, l); err != nil {
		return err
	}
	b.results.add(figPairBatch, got.perSecond())
	b.results.add(figBatchArrived, l.arrivedPerSecond(begun))
	b.say("pair, batches: %.0f accepted/s, %.0f delivered/s", got.perSecond(), l.arrivedPerSecond(begun))
	return nil
}

// drain waits until all that was accepted has arrived, then a moment longer for
// repeats. It gives up, without an error, once nothing has come for 15 s: what
// is missing then counts as lost.
func (b *bench) drain(ctx context.Context, l *ledger) error {
	const patience = 15 * time.Second
	last, lastAt := int64(-1), time.Now()
	for {
		accepted, arrived := l.progress()
		if arrived >= accepted {
			break
		}
		if arrived != last {
			last, lastAt = arrived, time.Now()
		}
		if time.Since(lastAt) > patience {
			b.results.note("%s%d of %d events had not arrived when nothing came for %v", b.inRound(), accepted-arrived, accepted, patience)
			return nil
		}
		if !sleepUntil(ctx, time.Now().Add(20*time.Millisecond)) {
			return ctx.Err()
		}
	}
	if !sleepUntil(ctx, time.Now().Add(200*time.Millisecond)) {
		return ctx.Err()
	}
	return nil
}

// samplePeak watches the sum of both sidecars' own memory, in MB, four times a
// second, until the returned function is called for the greatest.
func samplePeak(p pair) func() float64 {
	stop, peak := make(chan struct{}), make(chan float64)
	go func() {
		var greatest float64
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			if mb, err := p.memory(); err == nil { // a process that is gone shows in the figures themselves
				greatest = max(greatest, mb[0]+mb[1])
			}
			select {
			case <-stop:
				peak <- greatest
				return
			case <-tick.C:
			}
		}
	}()
	return func() float64 { close(stop); return <-peak }
}
