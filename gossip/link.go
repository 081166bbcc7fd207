package gossip

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dial"
)

// link is the exchange with one configured peer.
type link struct {
	url  string
	wake chan struct{}

	mu                sync.Mutex
	service, instance string // who answered last; "": nobody yet
	seenAt            time.Time
	failing           string // how the last exchange failed; "": it did not
	refused           bool   // the failure is a refusal, by either side
	echoes            bool   // it is ourselves
}

func newLink(url string) *link { return &link{url: url, wake: make(chan struct{}, 1)} }

func (d *Directory) linkTo(url string) *link {
	for _, l := range d.links {
		if l.url == url {
			return l
		}
	}
	return nil
}

func (l *link) leadsTo(desc Descriptor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.service, l.instance = desc.Service, desc.Instance
}

func (l *link) leads(service string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.service == service || l.service == ""
}

// note keeps how an exchange ended, and reports whether that is news.
func (l *link) note(err error, refused bool) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := ""
	if err != nil {
		text = dial.Plain(err)
	} else {
		l.seenAt = time.Now().UTC()
	}
	news = text != l.failing
	l.failing, l.refused = text, refused
	return news
}

// Run exchanges descriptors with every configured peer until ctx ends: quickly until it answers, then at the interval. It
// returns nil once all exchanges have ended.
func (d *Directory) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, l := range d.links {
		all.Go(func() { d.keepInTouch(ctx, l) })
	}
	all.Go(func() { d.askAnnounced(ctx) })
	<-ctx.Done()
	return nil
}

func (d *Directory) keepInTouch(ctx context.Context, l *link) {
	for failures := 0; ; {
		err := d.exchangeOver(ctx, l)
		if ctx.Err() != nil {
			return
		}
		wait := d.cfg.Interval*4/5 + time.Duration(rand.Float64()*float64(d.cfg.Interval)*2/5)
		if failures++; err == nil {
			failures = 0
		} else {
			// Full jitter can be next to nothing; a floor keeps a dead peer from being asked in a tight loop.
			wait = d.cfg.Retry.Base/2 + d.cfg.Retry.Wait(failures, rand.Float64())
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-time.After(wait):
		}
	}
}

// Refresh asks for newer descriptors of a service soon. It does not wait.
func (d *Directory) Refresh(service string) {
	for _, l := range d.links {
		if l.leads(service) {
			select {
			case l.wake <- struct{}{}:
			default: // woken already
			}
		}
	}
	select {
	case d.hurry <- service:
	default: // enough to ask already; they describe themselves again anyway
	}
}

// askAnnounced asks instances that announced themselves, which no link leads to, when somebody wants to know now: a
// service at most once a second.
func (d *Directory) askAnnounced(ctx context.Context) {
	var asking sync.WaitGroup
	defer asking.Wait()
	asked := make(map[string]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case service := <-d.hurry:
			urls := d.announcedURLs(service)
			if len(urls) == 0 || time.Since(asked[service]) < time.Second {
				continue
			}
			asked[service] = time.Now()
			for _, url := range urls {
				asking.Go(func() {
					if err := d.exchange(ctx, url, origin{from: url}, nil); err != nil && ctx.Err() == nil {
						d.cfg.Log.Debug("asking a peer failed", "url", url, "err", dial.Plain(err))
					}
				})
			}
		}
	}
}

func (d *Directory) announcedURLs(service string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var urls []string
	if s := d.services[service]; s != nil {
		for _, k := range s.instances {
			if k.via == "" {
				urls = append(urls, k.descriptor.URL)
			}
		}
	}
	return urls
}
