package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A load is one bounded stream of posts.
type load struct {
	url     string
	run     int64         // unique in this process
	conns   int           // connections, one post in flight on each
	batch   int           // events in one post: 1 posts an envelope, more a JSON array
	rate    float64       // events a second over all connections, on a fixed schedule; 0: as fast as answers come
	events  int64         // at most, at most maxRunEvents
	lasting time.Duration // sending stops after this long
}

const keysPerConn = 4 // so 256 keys at 64 connections

// sent is what the publishing side saw of a load.
type sent struct {
	accepted int64
	took     time.Duration   // first post to last answer
	latency  []time.Duration // of posts: due → answer; sorted
	refused  int64           // posts that were not answered 2xx
	refusal  string          // the first such answer or error
}

func (s sent) perSecond() float64 { return float64(s.accepted) / s.took.Seconds() }

// send runs the load and notes what is accepted in l.
func (ld load) send(ctx context.Context, l *ledger) (sent, error) {
	g := &generator{load: ld, ledger: l, start: time.Now()}
	ctx, cancel := context.WithDeadline(ctx, g.start.Add(ld.lasting))
	defer cancel()
	workers := make([]*worker, ld.conns)
	for i := range workers {
		c, err := newClient(ld.url)
		if err != nil {
			return sent{}, err
		}
		workers[i] = &worker{g: g, index: int64(i), client: c, render: newRenderer(uint64(i))}
	}
	var posting sync.WaitGroup
	for _, w := range workers {
		posting.Go(func() { w.run(ctx) })
	}
	posting.Wait()
	result := sent{took: time.Since(g.start)}
	for _, w := range workers {
		result.accepted += w.sent.accepted
		result.refused += w.sent.refused
		if result.refusal == "" {
			result.refusal = w.sent.refusal
		}
		result.latency = append(result.latency, w.sent.latency...)
	}
	slices.Sort(result.latency)
	return result, nil
}

type generator struct {
	load
	ledger *ledger
	start  time.Time
	next   atomic.Int64 // seq of the next event to post
}

// due returns when the post that begins with seq is to be sent.
func (g *generator) due(seq int64) time.Time {
	if g.rate == 0 {
		return time.Now()
	}
	return g.start.Add(time.Duration(float64(seq) / g.rate * float64(time.Second)))
}

// A worker owns one connection and the keys whose number is its index modulo the connections.
type worker struct {
	g      *generator
	index  int64
	client *client
	render *renderer
	turns  [keysPerConn]int64
	events int64
	body   []byte
	sent   sent
}

func (w *worker) run(ctx context.Context) {
	defer w.client.close()
	for {
		seq := w.g.next.Add(int64(w.g.batch)) - int64(w.g.batch)
		if seq >= w.g.events {
			return
		}
		due := w.g.due(seq)
		if !sleepUntil(ctx, due) {
			return
		}
		n := min(int64(w.g.batch), w.g.events-seq)
		w.compose(seq, n, due)
		w.post(ctx, seq, n, due)
	}
}

// compose renders the n events from seq into w.body.
func (w *worker) compose(seq, n int64, due time.Time) {
	w.body = w.body[:0]
	if w.g.batch > 1 {
		w.body = append(w.body, '[')
	}
	for i := range n {
		if i > 0 {
			w.body = append(w.body, ',')
		}
		slot := w.events % keysPerConn
		w.events++
		w.turns[slot]++
		w.body = w.render.event(w.body, mark{
			run: w.g.run, seq: seq + i, key: w.index + slot*int64(w.g.conns), turn: w.turns[slot], due: due.UnixNano(),
		})
	}
	if w.g.batch > 1 {
		w.body = append(w.body, ']')
	}
}

func (w *worker) post(ctx context.Context, seq, n int64, due time.Time) {
	status, err := w.client.post(w.body)
	w.sent.latency = append(w.sent.latency, time.Since(due))
	if err == nil && status/100 == 2 {
		w.sent.accepted += n
		w.g.ledger.accept(seq, n)
		return
	}
	w.sent.refused++
	if w.sent.refusal == "" {
		w.sent.refusal = fmt.Sprintf("%d %v %.300s", status, err, w.client.answer.body)
	}
	sleepUntil(ctx, time.Now().Add(10*time.Millisecond)) // so that a refusing server is not hammered
}

// sleepUntil reports whether at came before ctx ended.
func sleepUntil(ctx context.Context, at time.Time) bool {
	if time.Until(at) <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
