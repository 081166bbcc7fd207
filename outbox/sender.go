package outbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/hooksidecar/hooksidecar/internal/dial"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

const (
	attemptTimeout = 15 * time.Second // of one request
	sendTimeout    = 20 * time.Second // with the quick repeat of one that never left
	maxAnswerBytes = 1 << 20
	maxClockOffset = 24 * time.Hour
)

type signKey struct{}

// newClient returns a client whose quick repeats, of requests of which nothing was sent, are signed afresh by what the
// context holds.
func newClient(rt http.RoundTripper) *retryablehttp.Client {
	return dial.NewClient(dial.ClientConfig{Transport: rt, Timeout: attemptTimeout, Prepare: func(r *http.Request) error {
		r.Context().Value(signKey{}).(func(*http.Request))(r)
		return nil
	}})
}

// A sender makes the requests to one instance, one at a time.
type sender struct {
	o      *Outbox
	offset time.Duration // of the instance's clock, as far as an answer has shown that it matters
	warned string        // the last problem that was logged
}

// A parcel is what is sent in one request, copied so that the dispatcher can go on.
type parcel struct {
	service    string
	to         peer
	cursor     uint64
	question   bool // there are no events: only what the instance says of itself is wanted
	deliveries []packed
}

// packed is one event of a parcel.
type packed struct {
	seq        uint64
	attempt    int
	redelivery bool
	entry      *entry
}

// send delivers p and says what became of it. It never fails: what is not known is an answer to wait.
func (s *sender) send(ctx context.Context, p parcel) answer {
	if len(s.o.cfg.Keys) == 0 {
		return answer{here: true, problem: "this service has no signing key"}
	}
	body := s.write(p)
	id := batchID()
	content, digest := signature.BatchContent(body)
	sign := func(r *http.Request) {
		signature.SetHeaders(r.Header, signature.Ring(s.o.cfg.Keys), id, time.Now().Add(s.offset), content)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, signKey{}, sign), sendTimeout)
	defer cancel()
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(p.to.url, "/")+"/inbox/batch", body)
	if err != nil {
		return answer{problem: err.Error()}
	}
	req.Header.Set("Content-Type", event.BatchContentType)
	req.Header.Set("Content-Digest", digest)
	sign(req.Request)
	resp, err := s.o.client.Do(req)
	if err != nil {
		return answer{sent: !dial.NothingSent(err), problem: dial.Plain(err), body: dial.Plain(err)}
	}
	text, cut, err := dial.ReadAnswer(resp.Body, maxAnswerBytes)
	switch {
	case err != nil:
		return answer{sent: true, problem: "the answer broke off: " + dial.Plain(err)}
	case cut:
		return answer{sent: true, status: resp.StatusCode, problem: "the answer is too long"}
	}
	return s.read(p, id, resp, text)
}

// write puts the batch together.
func (s *sender) write(p parcel) []byte {
	w := event.NewBatchWriter(nil, event.BatchHeader{
		From: event.Party{Service: s.o.cfg.Service, Instance: s.o.cfg.Instance, StoreID: s.o.store.ID()}, To: p.service, Cursor: p.cursor,
	})
	for _, d := range p.deliveries {
		w.Add(event.Delivery{
			Seq: d.seq, Attempt: d.attempt, Redelivery: d.redelivery, AcceptedAt: d.entry.acceptedAt, Digest: d.entry.digest,
			Attributes: d.entry.attributes, Data: d.entry.data,
		})
	}
	return w.Bytes() // of its own: net/http may still read the body when its answer has come
}

func batchID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return "batch_" + hex.EncodeToString(b[:])
}
