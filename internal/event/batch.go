package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math"
	"strconv"
)

const (
	// BatchContentType is the media type of a batch between sidecars, exactly.
	BatchContentType = "application/vnd.hooksidecar.batch; v=1"
	// Protocol is the version of the batch and of its answer.
	Protocol = 1

	// MaxBatchHeaderBytes and MaxFrameBytes bound the frames of a batch; a data frame has at most MaxEventBytes.
	MaxBatchHeaderBytes = 4 << 10
	MaxFrameBytes       = 40 << 10

	maxNameBytes = 256 // of a service, an instance, a store id
)

// A Party is one end of a delivery.
type Party struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	StoreID  string `json:"storeId"`
}

// A BatchHeader begins a batch.
type BatchHeader struct {
	Protocol int
	From     Party
	To       string // service
	Cursor   uint64 // seq of the sender's log up to which this subscriber is settled or set aside
}

// A Delivery is one event of a batch, on its way to one subscriber.
type Delivery struct {
	Seq        uint64 // in the sender's log; from 1
	Attempt    int    // from 1
	Redelivery bool   // an earlier delivery cannot be excluded
	AcceptedAt int64  // Unix ms; when the app got its 202
	Digest     Digest
	Attributes []byte // as stored, see AppendAttributes
	Data       []byte
}

// A BatchWriter writes a batch.
type BatchWriter struct {
	buf []byte
	n   int
}

// NewBatchWriter begins a batch in the memory of buf, whose content it overwrites; nil is fine. The protocol is h's,
// or Protocol if that is 0. The names in h are at most 256 bytes each.
func NewBatchWriter(buf []byte, h BatchHeader) *BatchWriter {
	if h.Protocol == 0 {
		h.Protocol = Protocol
	}
	var fixed [512]byte
	head := append(fixed[:0], `{"protocol":`...)
	head = strconv.AppendInt(head, int64(h.Protocol), 10)
	head = append(head, `,"from":`...)
	head = h.From.append(head)
	head = append(head, `,"to":`...)
	head = appendString(head, h.To)
	head = append(head, `,"cursor":`...)
	head = strconv.AppendUint(head, h.Cursor, 10)
	head = append(head, '}')
	return &BatchWriter{buf: append(binary.AppendUvarint(buf[:0], uint64(len(head))), head...)}
}

// append appends the party as JSON.
func (p Party) append(dst []byte) []byte {
	dst = append(dst, `{"service":`...)
	dst = appendString(dst, p.Service)
	dst = append(dst, `,"instance":`...)
	dst = appendString(dst, p.Instance)
	dst = append(dst, `,"storeId":`...)
	dst = appendString(dst, p.StoreID)
	return append(dst, '}')
}

// Add adds an event, whose bytes it copies.
func (w *BatchWriter) Add(d Delivery) {
	var fixed [256]byte
	head := append(fixed[:0], `{"seq":`...)
	head = strconv.AppendUint(head, d.Seq, 10)
	head = append(head, `,"attempt":`...)
	head = strconv.AppendInt(head, int64(d.Attempt), 10)
	head = append(head, `,"redelivery":`...)
	head = strconv.AppendBool(head, d.Redelivery)
	head = append(head, `,"acceptedAt":`...)
	head = strconv.AppendInt(head, d.AcceptedAt, 10)
	head = append(head, `,"digest":"`...)
	head = base64.StdEncoding.AppendEncode(head, d.Digest[:])
	head = append(head, `","event":`...)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(head)+len(d.Attributes)+len("}")))
	w.buf = append(w.buf, head...)
	w.buf = append(w.buf, d.Attributes...)
	w.buf = append(w.buf, '}')
	w.buf = binary.AppendUvarint(w.buf, uint64(len(d.Data)))
	w.buf = append(w.buf, d.Data...)
	w.n++
}

// Bytes returns the batch so far. It is the writer's until the last Add.
func (w *BatchWriter) Bytes() []byte { return w.buf }

// Len returns the number of events so far.
func (w *BatchWriter) Len() int { return w.n }

// ReadBatchHeader reads the beginning of a batch; ReadDelivery goes on with rest. The error is an *Error.
func ReadBatchHeader(body []byte) (h BatchHeader, rest []byte, err error) {
	frame, rest, bad := readFrame(body, MaxBatchHeaderBytes, "header")
	if bad != nil {
		return BatchHeader{}, nil, bad
	}
	h, bad = parseBatchHeader(frame)
	if bad != nil {
		return BatchHeader{}, nil, bad
	}
	return h, rest, nil
}

// readFrame takes one frame off b.
func readFrame(b []byte, most int, what string) (frame, rest []byte, err *Error) {
	size, n := binary.Uvarint(b)
	switch {
	case n == 0:
		return nil, nil, fail(codeBadFrame, "", "the batch ends where the length of a %s frame should be", what)
	case n < 0:
		return nil, nil, fail(codeBadFrame, "", "the length of a %s frame is not a number of 64 bits", what)
	case n > 1 && b[n-1] == 0:
		return nil, nil, fail(codeBadFrame, "", "the length of a %s frame is written with more bytes than it needs", what)
	case size > uint64(most):
		return nil, nil, fail(codeBadFrame, "", "a %s frame has %d bytes, %d are allowed", what, size, most)
	case size > uint64(len(b)-n):
		return nil, nil, fail(codeBadFrame, "", "the batch ends within a %s frame: %d bytes of %d are there", what, len(b)-n, size)
	}
	end := n + int(size)
	return b[n:end:end], b[end:], nil
}

// badFrame is the error for a frame whose JSON is wrong. Only another protocol keeps its own code.
func badFrame(what string, err *Error) *Error {
	if err.Code == codeUnsupportedProtocol {
		return err
	}
	return fail(codeBadFrame, err.Pointer, "%s: %s", what, err.Detail)
}

func parseBatchHeader(frame []byte) (h BatchHeader, err *Error) {
	w := wire{scanner{buf: frame}}
	err = w.members([]string{"protocol", "from", "to", "cursor"}, 4, func(name string) (err *Error) {
		switch name {
		case "protocol":
			h.Protocol, err = w.protocol()
		case "from":
			h.From, err = w.party()
		case "to":
			h.To, err = w.name()
		case "cursor":
			h.Cursor, err = w.uint(maxNumber)
		}
		return err
	})
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return h, badFrame("batch header", err)
	}
	return h, nil
}

// ReadDelivery takes the next event off what ReadBatchHeader or ReadDelivery left; io.EOF means that there is none.
// Everything in d and e that is a slice is part of rest. Any other error is an *Error. If the frames are sound but the
// event in them breaks a rule, the code is that of the rule, d is set, and next is not nil: the others can still be read.
func ReadDelivery(rest []byte) (d Delivery, e Event, next []byte, err error) {
	if len(rest) == 0 {
		return Delivery{}, Event{}, nil, io.EOF
	}
	frame, rest, bad := readFrame(rest, MaxFrameBytes, "attributes")
	if bad != nil {
		return Delivery{}, Event{}, nil, bad
	}
	data, rest, bad := readFrame(rest, MaxEventBytes, "data")
	if bad != nil {
		return Delivery{}, Event{}, nil, bad
	}
	d, e, wrong, bad := parseDelivery(frame)
	if bad != nil {
		return Delivery{}, Event{}, nil, badFrame("attributes frame", bad)
	}
	d.Data = data
	if wrong == nil {
		e.Data = data
		wrong = checkDelivered(&d, &e)
	}
	if wrong != nil {
		return d, Event{}, rest, wrong
	}
	return d, e, rest, nil
}

// parseDelivery reads an attributes frame. bad says what is wrong with the frame, wrong what is wrong with the event.
func parseDelivery(frame []byte) (d Delivery, e Event, wrong, bad *Error) {
	w := wire{scanner{buf: frame}}
	known := []string{"seq", "attempt", "redelivery", "acceptedAt", "digest", "event"}
	bad = w.members(known, len(known), func(name string) (err *Error) {
		var n uint64
		switch name {
		case "seq":
			d.Seq, err = w.uint(maxNumber)
		case "attempt":
			n, err = w.uint(math.MaxInt32)
			d.Attempt = int(n)
		case "redelivery":
			d.Redelivery, err = w.bool()
		case "acceptedAt":
			n, err = w.uint(maxNumber)
			d.AcceptedAt = int64(n)
		case "digest":
			d.Digest, err = w.digest()
		case "event":
			d.Attributes, e, wrong, err = w.attributes()
		}
		return err
	})
	if bad == nil {
		bad = w.end()
	}
	if bad == nil && (d.Seq == 0 || d.Attempt == 0) {
		bad = fail(codeBadFrame, "", "seq and attempt are counted from 1")
	}
	return d, e, wrong, bad
}

// attributes reads an event's attributes inside a frame: their bytes, and the event if it breaks no rule.
func (w *wire) attributes() (raw []byte, e Event, wrong, bad *Error) {
	start := w.pos
	inner := reader{scanner: w.scanner}
	if wrong = inner.read(attributes); wrong == nil {
		w.pos = inner.pos
		return w.buf[start:w.pos:w.pos], inner.event, nil, nil
	}
	if bad = w.value(0); bad != nil { // not JSON: then it is the frame that is wrong
		return nil, Event{}, nil, bad
	}
	return w.buf[start:w.pos:w.pos], Event{}, wrong, nil
}

// checkDelivered checks what a sound frame says about an event against the event.
func checkDelivered(d *Delivery, e *Event) *Error {
	if err := checkSize(len(d.Attributes), len(d.Data)); err != nil {
		return err
	}
	if !e.Binary() {
		s := scanner{buf: d.Data}
		value, err := s.whole()
		if err != nil {
			return err.under("data")
		}
		if !bytes.Equal(value, d.Data) {
			return fail(codeInvalidField, "/data", "data has white space around it")
		}
	}
	if e.Digest() != d.Digest {
		return fail(codeBadFrame, "/digest", "the event of seq %d does not have the digest that was sent with it: it was changed on its way or on the sender's disk", d.Seq)
	}
	return nil
}
