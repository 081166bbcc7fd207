package inbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

const (
	knownPath      = "/peer/v1/known"
	siblingTimeout = time.Second      // for the answers of all, together
	siblingRest    = 5 * time.Second  // for one that let that time pass: it would hold up everything that is asked
	siblingsEvery  = 10 * time.Second // between looks at whether they can be reached
)

// errResting says that an instance was not asked, because it did not answer in time a moment ago.
var errResting = errors.New("it did not answer in time a moment ago")

// siblings asks the other instances of this service what they know. What they say is settled or open here is a fact; what
// they do not know may still be on its way to one of them only if that one cannot be asked.
type siblings struct {
	in     *Inbox
	client http.Client
	owned  *dial.Transport // closed by close; nil if it came with the config

	mu   sync.Mutex
	lost map[string]time.Time // store id of those that could not be asked last -> when they may be asked again
}

// hearsay is what the other instances say together about each of the events that they were asked about.
type hearsay struct {
	known []event.Knowledge
	sure  bool // all of them have answered
}

func newSiblings(in *Inbox) *siblings {
	s := &siblings{in: in, lost: map[string]time.Time{}}
	transport := in.cfg.PeerTransport
	if transport == nil {
		s.owned = dial.NewTransport(dial.Config{AllowLoopback: true})
		transport = s.owned
	}
	s.client = http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

func (s *siblings) close() {
	if s.owned != nil {
		s.owned.Close()
	}
}

// known returns the other instances of this service, reachable or not.
func (s *siblings) known() []event.Instance {
	var others []event.Instance
	for _, i := range s.in.cfg.Peers.Instances(s.in.cfg.Service) {
		if i.StoreID != s.in.store.ID() {
			others = append(others, i)
		}
	}
	return others
}

// ask asks all others at once, about at most event.MaxBatchEvents; none asks only whether they are there.
func (s *siblings) ask(ctx context.Context, others []event.Instance, events []event.Trace) hearsay {
	all, cancel := context.WithTimeout(ctx, siblingTimeout)
	defer cancel()
	answers := make([][]event.Knowledge, len(others))
	regained := make([]bool, len(others))
	var asking sync.WaitGroup
	for i, to := range others {
		asking.Go(func() {
			var err error
			if answers[i], err = s.askOne(all, to, events); ctx.Err() == nil {
				regained[i] = s.note(to, err, errors.Is(all.Err(), context.DeadlineExceeded))
			}
		})
	}
	asking.Wait()
	h := hearsay{known: make([]event.Knowledge, len(events)), sure: true}
	again := false
	for i, answer := range answers {
		h.add(answer)
		again = again || regained[i]
	}
	if again {
		s.in.recheck()
	}
	return h
}

// add takes the answer of one more instance; nil: it has none.
func (h *hearsay) add(answer []event.Knowledge) {
	if answer == nil {
		h.sure = false
		return
	}
	for i, k := range answer {
		if weight(k) > weight(h.known[i]) {
			h.known[i] = k
		}
	}
}

// weight orders what instances say about the same event: what makes an end of it counts most.
func weight(k event.Knowledge) int {
	switch k {
	case event.Settled:
		return 3
	case event.Open:
		return 2
	case event.Conflict:
		return 1
	}
	return 0
}

// note keeps whether an instance could be asked. It reports whether that is so for the first time after it was not.
func (s *siblings) note(to event.Instance, err error, late bool) (regained bool) {
	s.mu.Lock()
	_, wasLost := s.lost[to.StoreID]
	switch {
	case err == nil:
		delete(s.lost, to.StoreID)
	case errors.Is(err, errResting):
	case late:
		s.lost[to.StoreID] = time.Now().Add(siblingRest)
	default:
		s.lost[to.StoreID] = time.Time{}
	}
	s.mu.Unlock()
	if err == nil {
		s.in.m.asked.Inc()
		return wasLost
	}
	s.in.m.askedInVain.Inc()
	if !wasLost {
		s.in.log.Warn("another instance cannot be asked what it knows; repeats are marked until it can",
			"instance", to.Name, "url", to.URL, "err", dial.Plain(err))
	}
	return false
}

func (s *siblings) rests(storeID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.lost[storeID])
}

// askOne asks one instance. The answer is not nil if there is no error.
func (s *siblings) askOne(ctx context.Context, to event.Instance, events []event.Trace) ([]event.Knowledge, error) {
	if s.rests(to.StoreID) {
		return nil, errResting
	}
	in := s.in
	body := event.KnownQuestion{From: in.party(), To: to.StoreID, Events: events}.Append(nil)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(to.URL, "/")+knownPath, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	id := "known_" + randomHex()
	content, digest := signature.BatchContent(body)
	r.Header.Set("Content-Type", event.KnownContentType)
	r.Header.Set(signature.HeaderContentDigest, digest)
	signature.SetHeaders(r.Header, in.keys, id, time.Now(), content)
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	text, cut, err := dial.ReadAnswer(resp.Body, event.MaxKnownBytes)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK || cut || resp.Header.Get("Content-Type") != event.KnownContentType:
		return nil, fmt.Errorf("it answered %d, and not what it knows", resp.StatusCode)
	}
	return s.believe(to, id, resp.Header, text, len(events))
}

// believe reads an answer, which must be signed with a key of this service, for this very question.
func (s *siblings) believe(to event.Instance, id string, h http.Header, text []byte, n int) ([]event.Knowledge, error) {
	headers, err := signature.HeadersFrom(h)
	if err != nil {
		return nil, err
	}
	if headers.ID != id {
		return nil, errors.New("it answered another question")
	}
	if err := signature.Verify(headers, text, time.Now(), s.in.ownKeys()); err != nil {
		return nil, err
	}
	a, err := event.ParseKnownAnswer(text)
	if err != nil {
		return nil, err
	}
	if a.From.Service != s.in.cfg.Service || a.From.StoreID != to.StoreID || a.To != s.in.store.ID() || len(a.Known) != n {
		return nil, errors.New("the answer is another instance's, or for another")
	}
	if a.Known == nil {
		a.Known = []event.Knowledge{}
	}
	return a.Known, nil
}

// watch looks until ctx ends whether other instances come, come back, or can be reached again: then everything that is
// unsettled here may have been finished there in the meantime.
func (s *siblings) watch(ctx context.Context) {
	seen := s.boots()
	for {
		changed := s.in.cfg.Peers.Changed()
		now := s.boots()
		for storeID, boot := range now {
			if before, known := seen[storeID]; !known || boot > before {
				s.in.recheck()
				break
			}
		}
		seen = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(siblingsEvery*4/5 + mrand.N(siblingsEvery*2/5)):
			if others := s.known(); len(others) > 0 {
				s.ask(ctx, others, nil)
			}
		}
	}
}

// boots returns the other instances' boots by store id, and forgets what is known of those that are gone.
func (s *siblings) boots() map[string]uint64 {
	boots := map[string]uint64{}
	for _, i := range s.known() {
		boots[i.StoreID] = i.Boot
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for storeID := range s.lost {
		if _, known := boots[storeID]; !known {
			delete(s.lost, storeID)
		}
	}
	return boots
}

func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// party names this instance.
func (in *Inbox) party() event.Party {
	return event.Party{Service: in.cfg.Service, Instance: in.cfg.Instance, StoreID: in.store.ID()}
}

// ownKeys returns what instances of this service sign with.
func (in *Inbox) ownKeys() []signature.Key {
	keys := make([]signature.Key, len(in.cfg.Keys))
	for i, k := range in.cfg.Keys {
		keys[i] = k.Public()
	}
	return keys
}
