package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const committerWriters = 64

// commitFromArgs takes: directory, whether to add id records, duration.
func commitFromArgs(args []string, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("want DIR WITH_ID DURATION")
	}
	withID, err := strconv.ParseBool(args[1])
	if err != nil {
		return err
	}
	lasting, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	rate, err := commitRate(args[0], withID, lasting)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, rate)
	return err
}

// commitRate is the store without all that is around it: writers that each wait
// for their own event to be durable, and nothing else.
func commitRate(dir string, withID bool, lasting time.Duration) (rate float64, err error) {
	s, err := store.Open(store.Config{Dir: dir, Service: "bench", MinFreeBytes: -1, BallastBytes: -1})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), lasting)
	defer cancel()
	var (
		writing sync.WaitGroup
		events  atomic.Int64
		failed  = make(chan error, committerWriters)
	)
	begun := time.Now()
	for i := range committerWriters {
		writing.Go(func() {
			w := commitWriter{store: s, index: i, withID: withID, render: newRenderer(uint64(i))}
			for ctx.Err() == nil {
				if err := w.commit(); err != nil {
					failed <- err
					return
				}
				events.Add(1)
			}
		})
	}
	writing.Wait()
	took := time.Since(begun)
	select {
	case err = <-failed:
	default:
	}
	return float64(events.Load()) / took.Seconds(), err
}

type commitWriter struct {
	store  *store.Store
	index  int
	seq    int64
	withID bool
	render *renderer
	body   []byte
}

// commit makes one event durable, with the keys and sizes that the outbox uses.
func (w *commitWriter) commit() error {
	w.seq++
	w.body = w.render.event(append(w.body[:0], 1), mark{key: int64(w.index), seq: w.seq})
	id := event.Hash(strconv.Itoa(w.index), strconv.FormatInt(w.seq, 10))
	return w.store.Commit(context.Background(), store.Op{
		Class: store.Intake, Events: 1, Bytes: len(w.body),
		Apply: func(tx *store.Tx) error {
			seq := tx.Next(store.OutboxLog)
			tx.Insert(binary.BigEndian.AppendUint64([]byte{'e'}, seq), w.body)
			if w.withID {
				key := append([]byte{'i', 0, 1}, id[:]...)
				value := make([]byte, 1+32, 1+32+binary.MaxVarintLen64)
				value[0] = 1
				tx.Insert(key, binary.AppendUvarint(value, seq))
			}
			return nil
		},
	})
}
