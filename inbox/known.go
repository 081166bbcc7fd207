package inbox

import (
	"net/http"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/dedup"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

// ServeKnown answers POST /peer/v1/known: another instance of this service asks which events this one knows. Nobody else
// may ask: the question must be signed with a key of this service, and be meant for this store.
func (in *Inbox) ServeKnown(w http.ResponseWriter, r *http.Request) {
	q, id, err := in.readQuestion(w, r)
	var known []event.Knowledge
	if err == nil {
		known, err = in.knowledge(q.Events)
	}
	if err != nil {
		in.refuse(w, err)
		return
	}
	answer := event.KnownAnswer{From: in.party(), To: q.From.StoreID, Known: known}
	in.reply(w, event.KnownContentType, id, answer.Append(nil))
}

// readQuestion reads, believes and decodes a request. id is its webhook-id.
func (in *Inbox) readQuestion(w http.ResponseWriter, r *http.Request) (q event.KnownQuestion, id string, err error) {
	body, headers, err := in.readSigned(w, r, event.MaxKnownBytes, event.KnownContentType)
	if err != nil {
		return q, "", err
	}
	content, err := signature.VerifyBatchDigest(r.Header, body)
	if err == nil {
		err = signature.Verify(headers, content, time.Now(), in.ownKeys())
	}
	if err != nil {
		return q, "", in.distrust(err, "")
	}
	if q, err = event.ParseKnownQuestion(body); err != nil {
		return q, "", err
	}
	switch {
	case q.From.Service != in.cfg.Service:
		return q, "", problem.New("sender_not_allowed", "Only instances of "+quoted(in.cfg.Service)+" may ask what this one knows.")
	case q.To != in.store.ID() || q.From.StoreID == in.store.ID():
		return q, "", problem.New("not_addressed_here", "This instance has the store "+quoted(in.store.ID())+", the question is for "+quoted(q.To)+".")
	}
	return q, headers.ID, nil
}

// knowledge says what is known of each event. What is just coming in is looked for first: if it is gone from there it is
// durable, or was not stored.
func (in *Inbox) knowledge(events []event.Trace) ([]event.Knowledge, error) {
	coming := in.comingIn(events)
	found := make([]dedup.Record, len(events))
	known := make([]event.Knowledge, len(events))
	err := in.store.View(func(sn *store.Snapshot) error {
		for i := range events {
			rec, ok, err := in.window.Find(sn, events[i].Hash)
			if err != nil {
				return err
			}
			found[i], known[i] = rec, event.Unknown
			switch {
			case ok && event.TraceOf(events[i].Hash, rec.Digest) != events[i]:
				known[i] = event.Conflict
			case ok:
				known[i] = event.Settled // unless it turns out to be open
			case coming[events[i].Hash]:
				known[i] = event.Open
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range known {
		if known[i] == event.Settled && in.open(found[i].Seq) {
			known[i] = event.Open
		}
	}
	return known, nil
}

// comingIn returns which of the events are part of a request that is being decided.
func (in *Inbox) comingIn(events []event.Trace) map[[16]byte]bool {
	in.mu.Lock()
	requests := make([]*accept, 0, len(in.coming))
	for a := range in.coming {
		requests = append(requests, a)
	}
	in.mu.Unlock()
	if len(requests) == 0 || len(events) == 0 {
		return nil
	}
	asked := make(map[[16]byte]bool, len(events))
	for i := range events {
		asked[events[i].Hash] = false
	}
	for _, a := range requests {
		for i := range a.events { // which nobody changes once they have been read
			if _, meant := asked[a.events[i].hash]; meant {
				asked[a.events[i].hash] = true
			}
		}
	}
	return asked
}

// comes notes that a request is being decided, until the func that it returns is called.
func (in *Inbox) comes(a *accept) (gone func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.coming[a] = struct{}{}
	return func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		delete(in.coming, a)
	}
}
