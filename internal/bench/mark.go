package main

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"time"
)

const (
	eventBytes = 1024 // of one event as posted
	markStart  = "hb2:"
	markFields = 5
)

// A mark tells one generated event from all others, wherever it turns up.
type mark struct {
	run  int64 // which load it belongs to
	seq  int64 // unique within the run, from 0
	key  int64 // ordering key; all its events are sent by one connection, one at a time
	turn int64 // place among the events of its key, from 1
	due  int64 // when it was to be sent, Unix nanoseconds
}

// append adds the mark to b in a form that needs no escaping in JSON.
func (m mark) append(b []byte) []byte {
	b = append(b, markStart...)
	for _, v := range [markFields]int64{m.run, m.seq, m.key, m.turn, m.due} {
		b = strconv.AppendInt(b, v, 10)
		b = append(b, ';')
	}
	return b
}

// findMark returns the first whole mark in b.
func findMark(b []byte) (mark, bool) {
	for {
		i := bytes.Index(b, []byte(markStart))
		if i < 0 {
			return mark{}, false
		}
		b = b[i+len(markStart):]
		if m, ok := parseMark(b); ok {
			return m, true
		}
	}
}

// parseMark reads the fields at the start of b.
func parseMark(b []byte) (mark, bool) {
	var v [markFields]int64
	for i := range v {
		n := 0
		for ; n < len(b) && n < 19 && b[n] >= '0' && b[n] <= '9'; n++ {
			v[i] = v[i]*10 + int64(b[n]-'0')
		}
		if n == 0 || n == len(b) || b[n] != ';' {
			return mark{}, false
		}
		b = b[n+1:]
	}
	return mark{run: v[0], seq: v[1], key: v[2], turn: v[3], due: v[4]}, true
}

// A renderer makes events. It belongs to one goroutine.
type renderer struct {
	text []byte // what paddings are cut from
	rand *rand.Rand
}

func newRenderer(seed uint64) *renderer {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	r := &renderer{text: make([]byte, 64<<10), rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range r.text {
		r.text[i] = alphabet[r.rand.IntN(len(alphabet))]
	}
	return r
}

// event appends an envelope of eventBytes that holds m.
func (r *renderer) event(b []byte, m mark) []byte {
	start := len(b)
	b = append(b, `{"id":"`...)
	b = appendID(b, m)
	b = append(b, `","type":"bench.event","key":"k`...)
	b = strconv.AppendInt(b, m.key, 10)
	b = append(b, `","data":{"mark":"`...)
	b = m.append(b)
	b = append(b, `","pad":"`...)
	const end = `"}}`
	pad := max(0, eventBytes-len(end)-(len(b)-start))
	at := r.rand.IntN(len(r.text) - pad)
	b = append(b, r.text[at:at+pad]...)
	return append(b, end...)
}

// appendID adds the event id of m, unique over all runs of one process.
func appendID(b []byte, m mark) []byte {
	b = append(b, "bench-"...)
	b = strconv.AppendInt(b, m.run, 10)
	b = append(b, '-')
	return strconv.AppendInt(b, m.seq, 10)
}

// since returns the time from when the event was due until at.
func (m mark) since(at time.Time) time.Duration { return time.Duration(at.UnixNano() - m.due) }
