package outbox

import (
	"context"
	"sync"
	"time"
)

// A patience hands out contexts that end after about the same time. Those who ask within a twentieth of it share one: a context
// with a timer of its own for each publish is a noticeable part of what a publish costs.
type patience struct {
	lasting time.Duration

	mu     sync.Mutex
	ctx    context.Context
	cancel context.CancelFunc
	until  time.Time // nobody gets ctx after that
}

// begin returns a context that ends after lasting, or a twentieth of that earlier. It ends for everybody at once, so there is
// nothing to cancel.
func (p *patience) begin() context.Context {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx == nil || now.After(p.until) {
		// The one before ends by its own timer, for those who still wait with it.
		p.ctx, p.cancel = context.WithTimeout(context.Background(), p.lasting)
		p.until = now.Add(p.lasting / 20)
	}
	return p.ctx
}
