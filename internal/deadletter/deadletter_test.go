package deadletter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(store.Config{Dir: t.TempDir(), Service: "payment", BallastBytes: -1, MinFreeBytes: -1, AllowUnsafeFS: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func commit(t *testing.T, s *store.Store, apply func(*store.Tx) error) error {
	t.Helper()
	return s.Commit(t.Context(), store.Op{Class: store.Work, Apply: apply})
}

func putLetter(t *testing.T, s *store.Store, l Letter, attributes, data string) {
	t.Helper()
	var a []byte
	if attributes != "" {
		a = []byte(attributes)
	}
	if err := commit(t, s, func(tx *store.Tx) error { return Put(tx, l, a, []byte(data)) }); err != nil {
		t.Fatal(err)
	}
}

func getLetter(t *testing.T, s *store.Store, id string) (l Letter, ok bool, attributes, data string, held bool) {
	t.Helper()
	err := s.View(func(sn *store.Snapshot) error {
		var err error
		if l, ok, err = Get(sn, id); err != nil {
			return err
		}
		a, d, h, err := Event(sn, id)
		attributes, data, held = string(a), string(d), h
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, ok, attributes, data, held
}

func letter(id string) Letter {
	return Letter{
		Side: Inbox, Subscriber: "payment", Reason: "refused_by_app", EventID: id, Source: "orders", Type: "order.created",
		Seq: 7, Attempts: 3, Last: Answer{Status: 422, Header: map[string]string{"Content-Type": "text/plain"}, Body: "no"},
	}
}

func TestLetterIsKeptWithItsEvent(t *testing.T) {
	s := openStore(t)
	l := letter("evt_1")
	l.Last.Body = strings.Repeat("ü", MaxBodyBytes) + "\xff"
	putLetter(t, s, l, `{"id":"evt_1"}`, "\x00data")
	id := ID(Inbox, "payment", "orders", "evt_1")
	got, ok, attributes, data, held := getLetter(t, s, id)
	if !ok || got.ID != id || got.State != Dead || got.Attempts != 3 || got.Last.Status != 422 || got.FirstAt.IsZero() {
		t.Errorf("letter %+v", got)
	}
	if len(got.Last.Body) > MaxBodyBytes+3 {
		t.Errorf("%d bytes of the answer are kept", len(got.Last.Body))
	}
	if !held || attributes != `{"id":"evt_1"}` || data != "\x00data" {
		t.Errorf("event %q %q, held %v", attributes, data, held)
	}
	if other := ID(Outbox, "payment", "orders", "evt_1"); other == id {
		t.Error("both sides have the same letter")
	}
}

func TestPutAgainUpdates(t *testing.T) {
	s := openStore(t)
	putLetter(t, s, letter("evt_1"), `{"id":"evt_1"}`, "1")
	id := ID(Inbox, "payment", "orders", "evt_1")
	before, _, _, _, _ := getLetter(t, s, id)
	l := letter("evt_1")
	l.Reason, l.FirstAt = "attempts_exhausted", time.Now().Add(time.Hour)
	putLetter(t, s, l, "", "")
	after, _, attributes, _, held := getLetter(t, s, id)
	if after.Reason != "attempts_exhausted" || !after.FirstAt.Equal(before.FirstAt) {
		t.Errorf("letter %+v, before %+v", after, before)
	}
	if !held || attributes != `{"id":"evt_1"}` {
		t.Errorf("event %q, held %v", attributes, held)
	}
	if x, y := s.Live('x'), s.Live('y'); x != 1 || y != 1 {
		t.Errorf("%d letters and %d events counted, want one each", x, y)
	}
}

func TestStates(t *testing.T) {
	s := openStore(t)
	putLetter(t, s, letter("evt_1"), `{"id":"evt_1"}`, "1")
	id := ID(Inbox, "payment", "orders", "evt_1")
	set := func(id, state string) error {
		return commit(t, s, func(tx *store.Tx) error { return SetState(tx, id, state) })
	}
	if err := set(id, Replaying); err != nil {
		t.Fatal(err)
	}
	if l, _, _, _, held := getLetter(t, s, id); l.State != Replaying || !held {
		t.Errorf("state %s, event held %v", l.State, held)
	}
	for range 2 {
		if err := set(id, Resolved); err != nil {
			t.Fatal(err)
		}
	}
	if l, _, _, _, held := getLetter(t, s, id); l.State != Resolved || held {
		t.Errorf("state %s, event held %v", l.State, held)
	}
	putLetter(t, s, letter("evt_1"), `{"id":"evt_1"}`, "1")
	if l, _, _, _, held := getLetter(t, s, id); l.State != Dead || !held {
		t.Errorf("state %s, event held %v", l.State, held)
	}
	for _, missing := range []string{ID(Inbox, "payment", "orders", "evt_2"), "dl_zz", ""} {
		if err := set(missing, Dead); !errors.Is(err, ErrNotFound) {
			t.Errorf("state of %q: %v", missing, err)
		}
	}
}

func TestListFiltersAndPages(t *testing.T) {
	s := openStore(t)
	for i := range 25 {
		l := letter(fmt.Sprintf("evt_%d", i))
		if i%5 == 0 {
			l.Type, l.Reason = "invoice.sent", "attempts_exhausted"
		}
		putLetter(t, s, l, `{}`, "")
	}
	list := func(f Filter) (ids []string, next string) {
		t.Helper()
		err := s.View(func(sn *store.Snapshot) error {
			ls, n, err := List(sn, f)
			for _, l := range ls {
				ids = append(ids, l.ID)
			}
			next = n
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids, next
	}
	var all []string
	after, pages := "", 0
	for {
		ids, next := list(Filter{Limit: 10, After: after})
		all = append(all, ids...)
		if pages++; next == "" {
			break
		}
		after = next
	}
	if len(all) != 25 || pages != 3 || !slices.IsSorted(all) {
		t.Errorf("%d letters in %d pages", len(all), pages)
	}
	invoices, err := event.ParsePatterns([]string{"invoice.*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []Filter{{Reason: "attempts_exhausted"}, {Type: invoices}} {
		if ids, next := list(f); len(ids) != 5 || next != "" {
			t.Errorf("filter %+v: %d letters, next %q", f, len(ids), next)
		}
	}
	for _, f := range []Filter{{Side: Outbox}, {Subscriber: "x"}, {State: Resolved}} {
		if ids, _ := list(f); len(ids) != 0 {
			t.Errorf("filter %+v: %d letters", f, len(ids))
		}
	}
}

func TestFingerprintIgnoresWhatDiffersByEvent(t *testing.T) {
	a := Fingerprint("order.created", "refused_by_app", Answer{Status: 422, Body: `{"error":"order 123 of 7f3a-22 has no items"}`})
	b := Fingerprint("order.created", "refused_by_app", Answer{Status: 422, Body: `{"error":"order 99812 of 81bc-01 has no items"}`})
	if a != b {
		t.Error("the same failure has two fingerprints")
	}
	for _, other := range []string{
		Fingerprint("order.created", "refused_by_app", Answer{Status: 400, Body: `{"error":"order 123 of 7f3a-22 has no items"}`}),
		Fingerprint("order.created", "refused_by_app", Answer{Status: 422, Body: `{"error":"customer unknown"}`}),
		Fingerprint("order.deleted", "refused_by_app", Answer{Status: 422, Body: `{"error":"order 123 of 7f3a-22 has no items"}`}),
	} {
		if other == a {
			t.Error("different failures have one fingerprint")
		}
	}
}

func TestExpireRemovesWhatEndedLongAgo(t *testing.T) {
	s := openStore(t)
	long, lately := time.Now().Add(-time.Hour), time.Now()
	put := func(n int, side, state string, at time.Time) {
		err := commit(t, s, func(tx *store.Tx) error {
			for i := range n {
				l := letter(fmt.Sprint(side, state, at.Unix(), i))
				l.Side, l.State, l.LastAt, l.Seq = side, state, at, uint64(i+1)
				if err := Put(tx, l, []byte(`{}`), []byte("1")); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(1500, Inbox, Resolved, long) // more than one read and one operation
	put(3, Inbox, Purged, long)
	put(5, Inbox, Resolved, lately)
	put(7, Outbox, Resolved, long)
	for _, state := range []string{Dead, Waiting, Replaying} {
		put(2, Inbox, state, long)
	}
	if err := Expire(t.Context(), s, Inbox, time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if x, y := s.Live(letterPrefix), s.Live(eventPrefix); x != 5+7+6 || y != 5+7+6 {
		t.Errorf("%d letters and %d events are left, want 18 of each", x, y)
	}
	open, err := OpenSeqs(t.Context(), s, Inbox)
	if err != nil || len(open) != 2 {
		t.Errorf("open letters of events %v, %v", open, err)
	}
}
