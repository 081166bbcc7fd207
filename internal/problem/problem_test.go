package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// The page is what clients are written against: the table here must say the same.
func TestCodesAreThoseOfTheDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "## 4. Problem codes")
	section, _, _ = strings.Cut(section, "\n## ")
	code := regexp.MustCompile("`([a-z0-9_]+)`")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		status, err := strconv.Atoi(strings.TrimSpace(cells[2]))
		if err != nil {
			continue // the head of the table
		}
		for _, m := range code.FindAllStringSubmatch(cells[1], -1) {
			rows++
			p := New(m[1], "")
			if p.Code != m[1] || p.Status != status || p.Retryable != (strings.TrimSpace(cells[3]) == "yes") {
				t.Errorf("%s: got %s, status %d, retryable %t, want %s", m[1], p.Code, p.Status, p.Retryable, strings.TrimSpace(line))
			}
		}
	}
	if rows < 40 {
		t.Errorf("found %d codes in the docs: this test no longer reads the table", rows)
	}
}

func TestNewOfUnknownCode(t *testing.T) {
	if p := New("no_such_code", ""); p.Status != 500 || p.Code != "internal" {
		t.Errorf("got %s, %d", p.Code, p.Status)
	}
}

func TestFrom(t *testing.T) {
	own := New("id_conflict", "x")
	now := time.Date(2026, 2, 3, 10, 30, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		err    error
		code   string
		status int
	}{
		"a problem":           {own, "id_conflict", 409},
		"a wrapped problem":   {fmt.Errorf("store: %w", own), "id_conflict", 409},
		"event":               {&event.Error{Code: "missing_field", Pointer: "/type", Index: -1, Status: 400}, "missing_field", 400},
		"large event":         {&event.Error{Code: "too_large", Index: 3, Status: 413}, "too_large", 413},
		"fenced":              {fmt.Errorf("commit: %w", store.ErrFenced), "store_fenced", 503},
		"closed":              {store.ErrClosed, "stopping", 503},
		"disk low":            {store.ErrDiskLow, "disk_low", 507},
		"disk floor":          {store.ErrDiskFloor, "disk_floor", 507},
		"large operation":     {store.ErrTooLarge, "too_large", 413},
		"missing signature":   {signature.ErrMissing, "missing_signature", 401},
		"signature twice":     {fmt.Errorf("%w: Webhook-Id", signature.ErrDuplicateHeader), "duplicate_header", 400},
		"timestamp":           {signature.ErrBadTimestamp, "bad_timestamp", 401},
		"stale":               {&signature.StaleError{Theirs: now, Ours: now.Add(time.Hour)}, "stale", 401},
		"no match":            {signature.ErrNoMatch, "bad_signature", 401},
		"too many":            {signature.ErrTooMany, "bad_signature", 401},
		"digest":              {signature.ErrDigest, "bad_signature", 401},
		"deadline":            {fmt.Errorf("wait: %w", context.DeadlineExceeded), "store_slow", 503},
		"called off":          {context.Canceled, "stopping", 503},
		"max bytes":           {&http.MaxBytesError{Limit: 7}, "too_large", 413},
		"anything else":       {errors.New("open /secret/path: broken"), "internal", 500},
		"damaged record":      {store.ErrDamagedRecord, "internal", 500},
		"event, unknown code": {&event.Error{Code: "novel", Index: -1, Status: 400}, "internal", 500},
	} {
		t.Run(name, func(t *testing.T) {
			p := From(row.err)
			if p.Code != row.code || p.Status != row.status {
				t.Errorf("got %s, %d, want %s, %d", p.Code, p.Status, row.code, row.status)
			}
			if !errors.Is(row.err, p) && !errors.Is(p, row.err) {
				t.Error("the error is lost to the log")
			}
		})
	}
}

func TestInternalSaysNothing(t *testing.T) {
	w := httptest.NewRecorder()
	p := From(errors.New("open /secret/path: broken"))
	Write(w, p)
	if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "broken") {
		t.Errorf("the client is told %s", w.Body)
	}
	if !p.Logged() || From(store.ErrDiskLow).Logged() {
		t.Error("what to log: internal yes, a full disk no")
	}
}

func TestStaleShowsBothClocks(t *testing.T) {
	now := time.Date(2026, 2, 3, 10, 30, 0, 5e6, time.UTC)
	w := httptest.NewRecorder()
	Write(w, From(&signature.StaleError{Theirs: now.Add(-time.Hour), Ours: now}))
	var got struct{ Timestamp, Clock time.Time }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || !got.Clock.Equal(now) || now.Sub(got.Timestamp).Round(time.Second) != time.Hour {
		t.Errorf("got %+v, %v of %s", got, err, w.Body)
	}
}

func TestWrite(t *testing.T) {
	index := 0
	p := New("backlog_full", `say "<b>" & go`)
	p.Pointer, p.Index, p.RetryAfter = "/3/id", &index, 1500*time.Millisecond
	p.With("limit", 5).With("code", "never replaces").With("at", "now")
	w := httptest.NewRecorder()
	Write(w, p)
	want := `{"type":"about:blank","title":"Insufficient Storage","status":507,"code":"backlog_full","detail":"say \"<b>\" & go",` +
		`"pointer":"/3/id","index":0,"retryable":true,"at":"now","limit":5}`
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, want := range map[string]string{"Content-Type": "application/problem+json", "Retry-After": "2", "X-Content-Type-Options": "nosniff"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if w.Code != 507 {
		t.Errorf("status %d, want 507", w.Code)
	}
}

func TestWriteSurvivesExtraThatIsNotJSON(t *testing.T) {
	w := httptest.NewRecorder()
	Write(w, New("busy", "x").With("f", func() {}))
	if w.Code != 503 || !json.Valid(w.Body.Bytes()) || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
