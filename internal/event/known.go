package event

import (
	"encoding/base64"
	"math"
	"slices"
	"strconv"
)

const (
	// KnownContentType is the media type of a question to a sibling and of its answer, exactly.
	KnownContentType = "application/vnd.hooksidecar.known+json; v=1"
	// MaxKnownBytes bounds a question, and an answer. What Append makes is smaller.
	MaxKnownBytes = 64 << 10

	trace = 24 // bytes of a Trace on the wire
)

// A Trace is what one instance of a service asks another about an event by.
type Trace struct {
	Hash    [16]byte // Hash of source and id
	Content [8]byte  // the first bytes of the digest
}

// TraceOf returns the trace of an event.
func TraceOf(hash [16]byte, d Digest) Trace { return Trace{hash, [8]byte(d[:8])} }

// A Knowledge is what an instance says about one event that it was asked about.
type Knowledge string

// The answers.
const (
	Unknown  Knowledge = "unknown"  // not here, as far as it is remembered
	Open     Knowledge = "open"     // here, or just coming in, and not settled
	Settled  Knowledge = "settled"  // here, and settled: nothing more happens by itself
	Conflict Knowledge = "conflict" // the id is known here with other content
)

// A KnownQuestion asks another instance of the same service which events it knows.
type KnownQuestion struct {
	Protocol int // 0 in Append means Protocol
	From     Party
	To       string  // store id
	Events   []Trace // at most MaxBatchEvents; none asks only whether anybody is there
}

// A KnownAnswer is the answer to a KnownQuestion.
type KnownAnswer struct {
	Protocol int // 0 in Append means Protocol
	From     Party
	To       string      // store id of who asked
	Known    []Knowledge // one per event, in their order
}

// Append appends the question as JSON.
func (q KnownQuestion) Append(dst []byte) []byte {
	dst = appendKnownHead(dst, q.Protocol, q.From, q.To)
	dst = append(dst, `,"events":"`...)
	raw := make([]byte, 0, len(q.Events)*trace)
	for i := range q.Events {
		raw = append(append(raw, q.Events[i].Hash[:]...), q.Events[i].Content[:]...)
	}
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, `"}`...)
}

// Append appends the answer as JSON, with runs of equal answers counted.
func (a KnownAnswer) Append(dst []byte) []byte {
	dst = appendKnownHead(dst, a.Protocol, a.From, a.To)
	dst = append(dst, `,"known":[`...)
	for i := 0; i < len(a.Known); {
		count := 1
		for i+count < len(a.Known) && a.Known[i+count] == a.Known[i] {
			count++
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"state":`...)
		dst = appendString(dst, string(a.Known[i]))
		dst = append(dst, `,"count":`...)
		dst = strconv.AppendInt(dst, int64(count), 10)
		dst = append(dst, '}')
		i += count
	}
	return append(dst, `]}`...)
}

func appendKnownHead(dst []byte, protocol int, from Party, to string) []byte {
	if protocol == 0 {
		protocol = Protocol
	}
	dst = append(dst, `{"protocol":`...)
	dst = strconv.AppendInt(dst, int64(protocol), 10)
	dst = append(dst, `,"from":`...)
	dst = from.append(dst)
	dst = append(dst, `,"to":`...)
	return appendString(dst, to)
}

// ParseKnownQuestion reads a question. The error is an *Error.
func ParseKnownQuestion(b []byte) (q KnownQuestion, err error) {
	known := []string{"protocol", "from", "to", "events"}
	return q, parseKnown("question", b, known, func(w *wire, name string) (err *Error) {
		switch name {
		case "protocol":
			q.Protocol, err = w.protocol()
		case "from":
			q.From, err = w.party()
		case "to":
			q.To, err = w.name()
		case "events":
			q.Events, err = w.traces()
		}
		return err
	})
}

// ParseKnownAnswer reads an answer, with its runs spelled out. The error is an *Error.
func ParseKnownAnswer(b []byte) (a KnownAnswer, err error) {
	known := []string{"protocol", "from", "to", "known"}
	return a, parseKnown("answer", b, known, func(w *wire, name string) (err *Error) {
		switch name {
		case "protocol":
			a.Protocol, err = w.protocol()
		case "from":
			a.From, err = w.party()
		case "to":
			a.To, err = w.name()
		case "known":
			a.Known, err = w.knowledge()
		}
		return err
	})
}

// parseKnown reads an object that has all of the members.
func parseKnown(what string, b []byte, members []string, visit func(*wire, string) *Error) error {
	if len(b) > MaxKnownBytes {
		return fail(codeBadFrame, "", "the %s has %d bytes, %d are allowed", what, len(b), MaxKnownBytes)
	}
	w := wire{scanner{buf: b}}
	w.space()
	err := w.members(members, len(members), func(name string) *Error { return visit(&w, name) })
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return badFrame(what, err)
	}
	return nil
}

// traces reads the events of a question.
func (w *wire) traces() ([]Trace, *Error) {
	t, err := w.wantText("it")
	if err != nil {
		return nil, err
	}
	raw, bad := base64.StdEncoding.Strict().DecodeString(string(w.text(t)))
	if bad != nil || len(raw)%trace != 0 || len(raw) > MaxBatchEvents*trace {
		return nil, fail(codeInvalidField, "", "it must be the base64 of at most %d times %d bytes", MaxBatchEvents, trace)
	}
	events := make([]Trace, 0, len(raw)/trace)
	for one := range slices.Chunk(raw, trace) {
		events = append(events, Trace{Hash: [16]byte(one[:16]), Content: [8]byte(one[16:])})
	}
	return events, nil
}

// knowledge reads the runs of an answer.
func (w *wire) knowledge() ([]Knowledge, *Error) {
	if err := w.open('[', 1); err != nil {
		return nil, err
	}
	var list []Knowledge
	for i := 0; ; i++ {
		ok, err := w.element(i == 0)
		if err != nil || !ok {
			return list, err
		}
		k, count, err := w.known()
		if err == nil && (count == 0 || count > MaxBatchEvents-len(list)) {
			err = fail(codeInvalidField, "/count", "a run has at least one event, all together at most %d", MaxBatchEvents)
		}
		if err != nil {
			return nil, err.at(i)
		}
		list = append(list, slices.Repeat([]Knowledge{k}, count)...)
	}
}

// known reads a run of equal answers.
func (w *wire) known() (k Knowledge, count int, err *Error) {
	err = w.members([]string{"state", "count"}, 2, func(name string) (err *Error) {
		switch name {
		case "state":
			var s string
			s, err = w.string(maxCodeBytes)
			k = Knowledge(s)
		case "count":
			var n uint64
			n, err = w.uint(math.MaxInt32)
			count = int(n)
		}
		return err
	})
	if err == nil && !slices.Contains([]Knowledge{Unknown, Open, Settled, Conflict}, k) {
		err = fail(codeInvalidField, "/state", "unknown state %q", string(k))
	}
	return k, count, err
}
