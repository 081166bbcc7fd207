package store

import (
	"fmt"
	"sync"
)

// fence is closed by the first failed write and never opens again.
type fence struct {
	once   sync.Once
	closed chan struct{}
	cause  error // set before closed is closed
}

func newFence() *fence { return &fence{closed: make(chan struct{})} }

func (f *fence) close(cause error) {
	f.once.Do(func() {
		f.cause = fmt.Errorf("%w: %w", ErrFenced, cause)
		close(f.closed)
	})
}

func (f *fence) err() error {
	select {
	case <-f.closed:
		return f.cause
	default:
		return nil
	}
}

// Fenced is closed at the first failed commit or sync. The process should end: only a restart reads what is
// really on disk.
func (s *Store) Fenced() <-chan struct{} { return s.fence.closed }

// Err says why the store is fenced; nil while it is not.
func (s *Store) Err() error { return s.fence.err() }

func (s *Store) fenceWith(cause error) error {
	if s.fence.err() == nil {
		s.log.Error("write failed, store is fenced", "err", cause)
	}
	s.fence.close(cause)
	return s.fence.err()
}
