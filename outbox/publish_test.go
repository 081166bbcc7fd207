package outbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hooksidecar/hooksidecar/outbox"
)

func TestPublishAnswers(t *testing.T) {
	n := newNode(t)
	r := n.post("/outbox", `{"id":"evt_1","type":"order.created","data":{"a":1},"metadata":{"correlationId":"req_1"}}`)
	if r.status != 202 || r.Seq != 1 || r.Duplicate || r.CorrelationID != "req_1" || r.Subscribers == nil || len(r.Subscribers) != 0 {
		t.Errorf("first: %d %s", r.status, r.text)
	}
	if got, want := r.header.Get("Location"), "/outbox/events/evt_1"; got != want {
		t.Errorf("Location %q, want %q", got, want)
	}
	r = n.post("/outbox", `{ "data":{"a":1}, "type":"order.created",  "id":"evt_1" }`)
	if r.status != 200 || r.Seq != 1 || !r.Duplicate {
		t.Errorf("same content in another order: %d %s", r.status, r.text)
	}
	for _, body := range []string{
		`{"id":"evt_1","type":"order.created","data":{"a": 1}}`,
		`{"id":"evt_1","type":"order.created","data":{"a":1},"key":"k"}`,
		`{"id":"evt_1","type":"order.updated","data":{"a":1}}`,
	} {
		r = n.post("/outbox", body)
		if r.status != 409 || r.Code != "id_conflict" || r.Seq != 1 || r.AcceptedAt == "" {
			t.Errorf("other content %s: %d %s", body, r.status, r.text)
		}
	}
	if r = n.publish("evt_2"); r.Seq != 2 {
		t.Errorf("seq after refusals is %d, want 2", r.Seq)
	}
	if c := n.Counts(); c.Accepted != 2 || c.Duplicates != 1 || c.Conflicts != 3 || c.Bytes == 0 {
		t.Errorf("counts %+v", c)
	}
}

func TestPublishRefuses(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.Sources = []string{"legacy"}; c.MaxEventBytes = 10_000 })
	ok := `{"type":"a.b","data":1}`
	tests := []struct {
		name, path, body string
		headers          []string
		status           int
		code             string
	}{
		{"plain text", "/outbox", ok, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"},
		{"latin 1", "/outbox", ok, []string{"Content-Type", "application/json; charset=iso-8859-1"}, 415, "unsupported_media_type"},
		{"utf-8", "/outbox", ok, []string{"Content-Type", "application/json; charset=utf-8"}, 202, ""},
		{"gzip", "/outbox", ok, []string{"Content-Encoding", "gzip"}, 415, "unsupported_encoding"},
		{"not JSON", "/outbox", `{`, nil, 400, "invalid_json"},
		{"no data", "/outbox", `{"type":"a.b"}`, nil, 400, "missing_field"},
		{"two ids", "/outbox", `{"id":"x","type":"a.b","data":1}`, []string{"Idempotency-Key", "y"}, 400, "id_mismatch"},
		{"two keys", "/outbox", `{"key":"x","type":"a.b","data":1}`, []string{"X-Event-Key", "y"}, 400, "invalid_field"},
		{"empty id", "/outbox", ok, []string{"Idempotency-Key", ""}, 400, "invalid_field"},
		{"empty quoted id", "/outbox", ok, []string{"Idempotency-Key", `""`}, 400, "invalid_field"},
		{"broken quotes", "/outbox", ok, []string{"Idempotency-Key", `"a`}, 400, "invalid_field"},
		{"foreign source", "/outbox", `{"source":"other","type":"a.b","data":1}`, nil, 403, "source_not_allowed"},
		{"allowed source", "/outbox", `{"source":"legacy","type":"a.b","data":1}`, nil, 202, ""},
		{"too large", "/outbox", `{"type":"a.b","data":"` + strings.Repeat("x", 10_000) + `"}`, nil, 413, "too_large"},
		{"empty batch", "/outbox/batch", `[]`, nil, 400, "empty_batch"},
		{"batch with an id for all", "/outbox/batch", `[` + ok + `]`, []string{"Idempotency-Key", "x"}, 400, "invalid_field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := n.Counts().NextSeq
			r := n.post(tt.path, tt.body, tt.headers...)
			if r.status != tt.status || r.Code != tt.code {
				t.Errorf("%d %s, want %d %s", r.status, r.text, tt.status, tt.code)
			}
			if stored := n.Counts().NextSeq != before; stored != (tt.status < 300) {
				t.Errorf("stored: %v after %d", stored, r.status)
			}
		})
	}
}

func TestPublishTakesHeaders(t *testing.T) {
	n := newNode(t)
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r := n.post("/outbox", `{"type":"a.b","data":1,"metadata":{"userId":"u"}}`,
		"Idempotency-Key", `"id\"1\""`, "X-Event-Key", "k", "X-Correlation-ID", "c", "traceparent", trace)
	if r.status != 202 || r.ID != `id"1"` || r.CorrelationID != "c" {
		t.Fatalf("%d %s", r.status, r.text)
	}
	st, ok, err := n.Event(t.Context(), `id"1"`)
	if err != nil || !ok || st.Key != "k" || st.CorrelationID != "c" {
		t.Errorf("%+v %v %v", st, ok, err)
	}
	in := newInbox(t, "s", "s-1", n.key.Public())
	n.subscribe(in, "a.*")
	n.eventually("it arrives", func() bool { return len(in.received()) == 1 })
	if r = n.post("/outbox", `{"type":"a.b","data":1}`, "traceparent", trace); r.CorrelationID != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("correlation id %q, want the trace's", r.CorrelationID)
	}
}

func TestConcurrentPublishesOfOneIDAgree(t *testing.T) {
	n := newNode(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	seqs := map[uint64]bool{}
	for i := range 64 {
		wg.Go(func() {
			r := n.post("/outbox", fmt.Sprintf(`{"id":"x","type":"a.b","data":%d}`, i%2))
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
			seqs[r.Seq] = true
		})
	}
	wg.Wait()
	if statuses[202] != 1 || statuses[200] != 31 || statuses[409] != 32 || len(seqs) != 1 {
		t.Errorf("statuses %v, seqs %v", statuses, seqs)
	}
}

func TestBatchIsAllOrNothing(t *testing.T) {
	n := newNode(t)
	n.publish("old")
	item := func(id, data string) string {
		return fmt.Sprintf(`{"id":%q,"type":"order.created","data":%s}`, id, data)
	}
	r := n.post("/outbox/batch", `[`+item("a", "1")+`,`+item("old", `{"n":1}`)+`,`+item("b", "2")+`,`+item("a", "1")+`]`)
	if r.status != 202 || len(r.Results) != 4 {
		t.Fatalf("%d %s", r.status, r.text)
	}
	var got []string
	for _, x := range r.Results {
		got = append(got, fmt.Sprintf("%s %d %v", x.ID, x.Seq, x.Duplicate))
	}
	if want := []string{"a 2 false", "old 1 true", "b 3 false", "a 2 true"}; !slices.Equal(got, want) {
		t.Errorf("results %v, want %v", got, want)
	}
	for _, tt := range []struct {
		name, body string
		status     int
		code       string
		index      int
	}{
		{"conflict with a stored one", `[` + item("c", "1") + `,` + item("old", "2") + `]`, 409, "id_conflict", 1},
		{"conflict within", `[` + item("c", "1") + `,` + item("d", "1") + `,` + item("c", "2") + `]`, 409, "id_conflict", 2},
		{"invalid last", `[` + item("c", "1") + `,{"type":"x.y"}]`, 400, "missing_field", 1},
		{"foreign source", `[` + item("c", "1") + `,{"type":"x.y","data":1,"source":"other"}]`, 403, "source_not_allowed", 1},
		{"duplicate member", `[{"type":"x.y","type":"x.y","data":1}]`, 400, "duplicate_field", 0},
	} {
		r := n.post("/outbox/batch", tt.body)
		if r.status != tt.status || r.Code != tt.code || r.Index == nil || *r.Index != tt.index {
			t.Errorf("%s: %d %s", tt.name, r.status, r.text)
		}
	}
	if next := n.Counts().NextSeq; next != 4 {
		t.Errorf("next seq %d after refused batches, want 4", next)
	}
	if r := n.post("/outbox/batch", `[`+item("a", "1")+`]`); r.status != 200 {
		t.Errorf("all duplicates: %d, want 200", r.status)
	}
}

func TestBatchOfTheGreatestSize(t *testing.T) {
	n := newNode(t)
	items := make([]string, 1000)
	for i := range items {
		items[i] = `{"type":"order.created","data":"` + strings.Repeat("x", 1750) + `"}`
	}
	r := n.post("/outbox/batch", "["+strings.Join(items, ",")+"]")
	if r.status != http.StatusAccepted || len(r.Results) != 1000 || r.Results[999].Seq != 1000 {
		t.Fatalf("%d, %d results: %.300s", r.status, len(r.Results), r.text)
	}
	if r := n.post("/outbox/batch", "["+strings.Join(append(items, items[0]), ",")+"]"); r.status != 413 || r.Code != "too_many_events" {
		t.Errorf("1001 events: %d %s", r.status, r.Code)
	}
}

func TestPublishWhenTheLogIsFull(t *testing.T) {
	n := newNode(t, func(c *outbox.Config) { c.MaxBytes = 4000 })
	in := newInbox(t, "s", "s-1", n.key.Public())
	in.set(func() { in.refuse = func(w http.ResponseWriter, _ int) bool { w.WriteHeader(503); return true } })
	n.subscribe(in, "order.*")
	var r result
	accepted := 0
	for i := range 100 {
		if r = n.post("/outbox", fmt.Sprintf(`{"id":"e%d","type":"order.created","data":"%0200d"}`, i, i)); r.status != 202 {
			break
		}
		accepted++
	}
	if r.status != 507 || r.Code != "backlog_full" || r.header.Get("Retry-After") == "" {
		t.Fatalf("%d %s", r.status, r.text)
	}
	in.set(func() { in.refuse = nil })
	n.eventually("what is settled makes room", func() bool {
		return n.post("/outbox", `{"id":"late","type":"order.created","data":"x"}`).status < 300
	})
	n.eventually("all arrive", func() bool { return len(in.received()) == accepted+1 })
}

func TestEventIsFound(t *testing.T) {
	n := newNode(t)
	n.publish("a/b%c", "key", "k")
	req, _ := http.NewRequest(http.MethodGet, n.server.URL+"/outbox/events/a%2Fb%25c", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var st outbox.EventStatus
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		t.Fatal(err)
	}
	if st.ID != "a/b%c" || st.Seq != 1 || st.Key != "k" || !st.Kept || len(st.Subscribers) != 0 || st.AcceptedAt.IsZero() {
		t.Errorf("%+v", st)
	}
	req, _ = http.NewRequest(http.MethodGet, n.server.URL+"/outbox/events/none", nil)
	if r := n.do(req); r.status != 404 || r.Code != "not_found" {
		t.Errorf("%d %s", r.status, r.text)
	}
}
