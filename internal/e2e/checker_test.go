package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A story is all that is known about one subscriber when a test ends: what was posted, and what its app got.
type story struct {
	subscriber string
	posted     []posted        // in the order of publishing within each key
	arrivals   []arrival       // in the order of arrival
	dead       map[string]bool // ids of dead letters
	waiting    map[string]bool // ids that may still wait
	secret     string          // whsec_… of the hop to the app; "": unsigned
}

// check reports every promise that the story breaks, up to a readable number.
func (s story) check(t *testing.T) {
	t.Helper()
	const most = 20
	faults := s.faults()
	for i, f := range faults {
		if i == most {
			t.Errorf("%s: and %d more", s.subscriber, len(faults)-most)
			return
		}
		t.Errorf("%s: %s", s.subscriber, f)
	}
}

// faults is every broken promise, one sentence each.
func (s story) faults() []string {
	var all []string
	for _, rule := range []func() []string{s.lost, s.invented, s.changed, s.unmarked, s.disordered, s.overlapping, s.unsigned, s.mislabelled, s.misnumbered} {
		all = append(all, rule()...)
	}
	return all
}

// lost: what was acknowledged was done by the app, or is dead, or waits.
func (s story) lost() (faults []string) {
	done := map[string]bool{}
	for _, a := range s.arrivals {
		if a.Status/100 == 2 {
			done[a.Source+" "+a.ID] = true
		}
	}
	for _, p := range s.posted {
		if p.Outcome == acknowledged && !done[p.Source+" "+p.ID] && !s.dead[p.ID] && !s.waiting[p.ID] {
			faults = append(faults, fmt.Sprintf("%s (seq %d) was acknowledged and never done", p.ID, p.Seq))
		}
	}
	return faults
}

// invented: nothing arrives that was refused, or that nobody posted.
func (s story) invented() (faults []string) {
	outcomes := map[string]outcome{}
	for _, p := range s.posted {
		id := p.Source + " " + p.ID
		if outcomes[id] != acknowledged { // an id may be refused with other content after it was acknowledged
			outcomes[id] = p.Outcome
		}
	}
	for _, a := range s.arrivals {
		switch o, ok := outcomes[a.Source+" "+a.ID]; {
		case !ok:
			faults = append(faults, fmt.Sprintf("%q of %q arrived and nobody posted it", a.ID, a.Source))
		case o == refused:
			faults = append(faults, fmt.Sprintf("%s was refused and arrived", a.ID))
		}
	}
	return faults
}

// changed: data arrives byte for byte.
func (s story) changed() (faults []string) {
	data := map[string][]string{}
	for _, p := range s.posted {
		if p.Outcome != refused {
			data[p.Source+" "+p.ID] = append(data[p.Source+" "+p.ID], p.Data)
		}
	}
	for _, a := range s.arrivals {
		known := data[a.Source+" "+a.ID]
		same := len(known) == 0
		for _, d := range known {
			same = same || d == string(a.Data)
		}
		if !same {
			faults = append(faults, fmt.Sprintf("%s was posted with data %s and arrived with %s", a.ID, known[0], a.Data))
		}
	}
	return faults
}

// marked reports whether the app is told that this may be a repeat.
func (a arrival) marked() bool {
	return a.Header.Get("X-Delivery-Redelivered") == "true" || a.Header.Get("X-Replay-ID") != ""
}

// attempt is the number that the sidecar gives, 0 if it gives none.
func (a arrival) attempt() int {
	n, _ := strconv.Atoi(a.Header.Get("X-Delivery-Attempt"))
	return n
}

// unmarked: a repeat is marked, unless the app itself asked for it with an answer that certainly arrived.
func (s story) unmarked() (faults []string) {
	earlier := map[string]arrival{}
	for _, a := range s.arrivals {
		id := a.Source + " " + a.ID
		before, repeat := earlier[id]
		earlier[id] = a
		if !repeat || a.marked() {
			continue
		}
		asked := before.Status != 0 && before.Status/100 != 2 && !before.Lost
		if !asked || a.attempt() <= before.attempt() {
			faults = append(faults, fmt.Sprintf("%s arrived again, unmarked: attempt %d after attempt %d, which was answered %d (lost: %v)",
				a.ID, a.attempt(), before.attempt(), before.Status, before.Lost))
		}
	}
	return faults
}

// disordered: the events of a key are done in the order of publishing. A crash may go back to an earlier event, and
// must then go on from there; nothing is jumped over but what never arrives for a reason (refused, dead, waiting).
func (s story) disordered() (faults []string) {
	arrived := map[string]bool{}
	for _, a := range s.arrivals {
		arrived[a.Source+" "+a.ID] = true
	}
	place, count := map[string]int{}, map[string]int{} // by event; by key
	for _, p := range s.posted {
		id := p.Source + " " + p.ID
		if _, known := place[id]; p.Key == "" || known || !arrived[id] {
			continue
		}
		count[p.Source+" "+p.Key]++
		place[id] = count[p.Source+" "+p.Key]
	}
	last := map[string]int{}
	for _, a := range s.arrivals {
		key := a.Source + " " + a.Key
		n, ok := place[a.Source+" "+a.ID]
		if !ok {
			continue
		}
		if n > last[key]+1 {
			faults = append(faults, fmt.Sprintf("%s is number %d of key %s and came when number %d had come", a.ID, n, a.Key, last[key]))
		}
		last[key] = n
	}
	return faults
}

// overlapping: of one key, one at a time. What an app still does for a sidecar that died may overlap with the repeat.
func (s story) overlapping() (faults []string) {
	last := map[string]arrival{}
	for _, a := range s.arrivals {
		if a.Key == "" {
			continue
		}
		before, ok := last[a.Source+" "+a.Key]
		last[a.Source+" "+a.Key] = a
		if ok && !a.marked() && (before.EndedAt.IsZero() || before.EndedAt.After(a.BeganAt)) {
			faults = append(faults, fmt.Sprintf("%s came while %s of the same key was not answered", a.ID, before.ID))
		}
	}
	return faults
}

// unsigned: every request verifies under the app's secret, in both forms.
func (s story) unsigned() (faults []string) {
	if s.secret == "" {
		return nil
	}
	for _, a := range s.arrivals {
		if why := verifyAppHop(s.secret, a); why != "" {
			faults = append(faults, fmt.Sprintf("%s: %s", a.ID, why))
		}
	}
	return faults
}

// verifyAppHop checks the Standard Webhooks signature and the plain one; "" means that both are right.
func verifyAppHop(secret string, a arrival) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return err.Error()
	}
	at, err := strconv.ParseInt(a.Header.Get("webhook-timestamp"), 10, 64)
	if err != nil {
		return "webhook-timestamp: " + err.Error()
	}
	if off := a.BeganAt.Sub(time.Unix(at, 0)); off < -time.Minute || off > time.Minute {
		return fmt.Sprintf("webhook-timestamp is %v off", off)
	}
	signed := hmac.New(sha256.New, key)
	fmt.Fprintf(signed, "%s.%d.%s", a.Header.Get("webhook-id"), at, a.Body)
	want := "v1," + base64.StdEncoding.EncodeToString(signed.Sum(nil))
	if got := a.Header.Get("webhook-signature"); got != want {
		return fmt.Sprintf("webhook-signature is %q, want %q", got, want)
	}
	plain := hmac.New(sha256.New, key)
	plain.Write(a.Body)
	want = "sha256=" + hex.EncodeToString(plain.Sum(nil))
	if got := a.Header.Get("X-Event-Signature"); got != want {
		return fmt.Sprintf("X-Event-Signature is %q, want %q", got, want)
	}
	return ""
}

// mislabelled: the headers say what the body says.
func (s story) mislabelled() (faults []string) {
	for _, a := range s.arrivals {
		correlation, _ := a.Metadata["correlationId"].(string)
		for header, want := range map[string]string{"X-Event-ID": a.ID, "X-Event-Type": a.Type, "X-Event-Source": a.Source, "X-Correlation-ID": correlation} {
			if got := a.Header.Get(header); got != want || got == "" {
				faults = append(faults, fmt.Sprintf("%s: header %s is %q, the body says %q", a.ID, header, got, want))
			}
		}
		if a.attempt() < 1 {
			faults = append(faults, fmt.Sprintf("%s: X-Delivery-Attempt is %q", a.ID, a.Header.Get("X-Delivery-Attempt")))
		}
	}
	return faults
}

// misnumbered: no seq is given twice by one sidecar, and seqs of a key rise in the order of publishing.
func (s story) misnumbered() (faults []string) {
	owner, last := map[string]string{}, map[string]uint64{}
	for _, p := range s.posted {
		if p.Outcome != acknowledged {
			continue
		}
		seq, key := fmt.Sprintf("%s %d", p.Source, p.Seq), p.Source+" "+p.Key
		if other, taken := owner[seq]; taken && other != p.ID {
			faults = append(faults, fmt.Sprintf("%s and %s have the same seq %d", other, p.ID, p.Seq))
		}
		if p.Key != "" && owner[seq] != p.ID && p.Seq <= last[key] {
			faults = append(faults, fmt.Sprintf("%s has seq %d after seq %d of the same key", p.ID, p.Seq, last[key]))
		}
		owner[seq], last[key] = p.ID, max(last[key], p.Seq)
	}
	return faults
}

// TestCheckerNoticesEveryBrokenPromise feeds the checker stories that break one promise each: a checker that finds
// nothing in them would prove nothing elsewhere.
func TestCheckerNoticesEveryBrokenPromise(t *testing.T) {
	const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	post := func(id, key string, seq uint64) posted {
		return posted{Source: "order-service", ID: id, Type: "order.created", Key: key, Data: `{"n":1}`, Outcome: acknowledged, Seq: seq}
	}
	start := time.Now()
	come := func(id, key string, at int) arrival {
		return signedArrival(secret, id, key, start.Add(time.Duration(at)*time.Millisecond))
	}
	honest := func() story {
		return story{subscriber: "payment-service", secret: secret,
			posted:   []posted{post("a", "k", 1), post("b", "k", 2), post("c", "", 3)},
			arrivals: []arrival{come("a", "k", 0), come("b", "k", 10), come("c", "", 20)}}
	}
	tests := []struct {
		name   string
		breaks func(*story)
		fault  string // "": none
	}{
		{"an honest story", func(*story) {}, ""},
		{"an acknowledged event that never comes", func(s *story) { s.arrivals = s.arrivals[:2] }, "never done"},
		{"one that is a dead letter", func(s *story) { s.arrivals = s.arrivals[:2]; s.dead = map[string]bool{"c": true} }, ""},
		{"one that the app never accepted", func(s *story) { s.arrivals[2].Status = 500 }, "never done"},
		{"a refused event", func(s *story) { s.posted[2].Outcome = refused }, "was refused and arrived"},
		{"an event whose producer had no answer", func(s *story) { s.posted[2].Outcome = unknown }, ""},
		{"an event that nobody posted", func(s *story) { s.posted = s.posted[:2] }, "nobody posted"},
		{"other bytes of data", func(s *story) { s.posted[1].Data = `{"n": 1}` }, "arrived with"},
		{"an unmarked repeat", func(s *story) { s.arrivals = append(s.arrivals, come("c", "", 30)) }, "unmarked"},
		{"a marked repeat", func(s *story) {
			s.arrivals = append(s.arrivals, come("c", "", 30).with("X-Delivery-Redelivered", "true"))
		}, ""},
		{"a retry that the app asked for", func(s *story) {
			s.arrivals[2].Status = 503
			s.arrivals = append(s.arrivals, come("c", "", 30).with("X-Delivery-Attempt", "2"))
		}, ""},
		{"a retry that says that it is the first attempt", func(s *story) {
			s.arrivals[2].Status = 503
			s.arrivals = append(s.arrivals, come("c", "", 30))
		}, "unmarked"},
		{"an unmarked retry after an answer that may be lost", func(s *story) {
			s.arrivals[2].Status, s.arrivals[2].Lost = 503, true
			s.arrivals = append(s.arrivals, come("c", "", 30).with("X-Delivery-Attempt", "2"))
		}, "unmarked"},
		{"the second of a key first", func(s *story) { s.arrivals[0], s.arrivals[1] = come("b", "k", 0), come("a", "k", 10) }, "number 2 of key k"},
		{"a step back that goes on where it was", func(s *story) {
			s.posted = append(s.posted, post("d", "k", 4))
			s.arrivals = append(s.arrivals, come("a", "k", 30).with("X-Delivery-Redelivered", "true"), come("d", "k", 40))
		}, "number 3 of key k"},
		{"two of a key at once", func(s *story) { s.arrivals[0].EndedAt = start.Add(15 * time.Millisecond) }, "was not answered"},
		{"another secret", func(s *story) { s.secret = "whsec_eA==" }, "webhook-signature"},
		{"an old timestamp", func(s *story) { s.arrivals[0].BeganAt = start.Add(-2 * time.Minute) }, "off"},
		{"a header that lies", func(s *story) { s.arrivals[0] = s.arrivals[0].with("X-Event-Type", "order.paid") }, "X-Event-Type"},
		{"a seq given twice", func(s *story) { s.posted[2].Seq = 2 }, "same seq"},
		{"seqs of a key that fall", func(s *story) { s.posted[0].Seq = 9 }, "after seq 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := honest()
			tt.breaks(&s)
			faults := strings.Join(s.faults(), "\n")
			if tt.fault == "" && faults != "" {
				t.Errorf("faults: %s; want none", faults)
			}
			if !strings.Contains(faults, tt.fault) {
				t.Errorf("faults: %q; want one with %q", faults, tt.fault)
			}
		})
	}
}

// with returns the arrival with another value of a header.
func (a arrival) with(header, value string) arrival {
	a.Header = a.Header.Clone()
	a.Header.Set(header, value)
	return a
}

// signedArrival is a request as an honest sidecar sends it, answered with 200 after a millisecond.
func signedArrival(secret, id, key string, at time.Time) arrival {
	body := fmt.Sprintf(`{"id":%q,"key":%q,"data":{"n":1}}`, id, key)
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	signed, plain := hmac.New(sha256.New, raw), hmac.New(sha256.New, raw)
	fmt.Fprintf(signed, "%s.%d.%s", id, at.Unix(), body)
	plain.Write([]byte(body))
	a := arrival{BeganAt: at, EndedAt: at.Add(time.Millisecond), Body: []byte(body), Status: http.StatusOK, Header: http.Header{},
		ID: id, Source: "order-service", Type: "order.created", Key: key, Data: []byte(`{"n":1}`), Metadata: map[string]any{"correlationId": "c1"}}
	for name, value := range map[string]string{
		"webhook-id": id, "webhook-timestamp": strconv.FormatInt(at.Unix(), 10),
		"webhook-signature": "v1," + base64.StdEncoding.EncodeToString(signed.Sum(nil)),
		"X-Event-Signature": "sha256=" + hex.EncodeToString(plain.Sum(nil)),
		"X-Event-ID":        id, "X-Event-Type": "order.created", "X-Event-Source": "order-service",
		"X-Correlation-ID": "c1", "X-Delivery-Attempt": "1",
	} {
		a.Header.Set(name, value)
	}
	return a
}
