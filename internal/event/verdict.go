package event

import (
	"math"
	"slices"
	"strconv"
	"time"
)

const (
	// VerdictsContentType is the media type of the answer to a batch, exactly.
	VerdictsContentType = "application/vnd.hooksidecar.verdicts+json; v=1"

	// MaxOpenKeys bounds the open keys of an answer; more are sent as "all".
	MaxOpenKeys = 1000
	// MaxAnswerBytes bounds an answer. What Append makes is smaller.
	MaxAnswerBytes = 1 << 20

	maxCodeBytes   = 64
	maxDetailBytes = 256
)

// A Verdict is what an inbox says about one event of a batch.
type Verdict string

// The verdicts.
const (
	Stored    Verdict = "stored"    // synced here
	Duplicate Verdict = "duplicate" // was here already, with the same content
	Unwanted  Verdict = "unwanted"  // no subscription here matches
	Rejected  Verdict = "rejected"  // will never be taken; the code says why
	KeyBusy   Verdict = "key_busy"  // not now, because of another event of its key
	Busy      Verdict = "busy"      // not now, and none after it
)

// An Outcome is a verdict with its reason.
type Outcome struct {
	Verdict Verdict
	Code    string // given with Rejected, may be given with others
	Detail  string // a sentence for people; "" means none
}

// A BatchAnswer is what an inbox answers to a batch.
type BatchAnswer struct {
	Protocol int // 0 in Append means Protocol
	From     Party
	To       string    // store id of the sender
	Verdicts []Outcome // one per event, in their order; at most MaxBatchEvents
	Applied  uint64    // seq of the sender's log up to which this inbox has settled everything that it was given
	OpenKeys []uint64  // hashes of the keys that are open above Applied
	OpenAll  bool      // there are too many to name: any key may be open
	Clock    time.Time // of the inbox
}

// Append appends the answer as JSON. Codes and details are cut to what ParseBatchAnswer takes.
func (a BatchAnswer) Append(dst []byte) []byte {
	if a.Protocol == 0 {
		a.Protocol = Protocol
	}
	if len(a.OpenKeys) > MaxOpenKeys {
		a.OpenKeys, a.OpenAll = nil, true
	}
	dst = append(dst, `{"protocol":`...)
	dst = strconv.AppendInt(dst, int64(a.Protocol), 10)
	dst = append(dst, `,"from":`...)
	dst = a.From.append(dst)
	dst = append(dst, `,"to":`...)
	dst = appendString(dst, a.To)
	dst = append(dst, `,"verdicts":[`...)
	for i := 0; i < len(a.Verdicts); {
		if i > 0 {
			dst = append(dst, ',')
		}
		count := 1
		for i+count < len(a.Verdicts) && a.Verdicts[i+count] == a.Verdicts[i] {
			count++
		}
		dst = a.Verdicts[i].append(dst, count)
		i += count
	}
	dst = append(dst, `],"applied":`...)
	dst = strconv.AppendUint(dst, a.Applied, 10)
	dst = append(dst, `,"openKeys":[`...)
	for i, k := range a.OpenKeys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendHex(dst, k)
		dst = append(dst, '"')
	}
	dst = append(dst, `],"openAll":`...)
	dst = strconv.AppendBool(dst, a.OpenAll)
	dst = append(dst, `,"clock":"`...)
	dst = a.Clock.UTC().AppendFormat(dst, timestampLayout)
	return append(dst, `"}`...)
}

// append appends a run of equal outcomes.
func (o Outcome) append(dst []byte, count int) []byte {
	if o.Verdict == Rejected && o.Code == "" {
		o.Code = string(Rejected) // rather than an answer that the sender throws away as a whole
	}
	dst = append(dst, `{"verdict":`...)
	dst = appendString(dst, string(o.Verdict))
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendInt(dst, int64(count), 10)
	if o.Code != "" {
		dst = append(dst, `,"code":`...)
		dst = appendString(dst, cleanText(o.Code, maxCodeBytes))
	}
	if o.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = appendString(dst, cleanText(o.Detail, maxDetailBytes))
	}
	return append(dst, '}')
}

// appendHex appends 16 hexadecimal digits.
func appendHex(dst []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return dst
}

// ParseBatchAnswer reads an answer, with its runs spelled out. The error is an *Error, nearly always a "bad_frame".
func ParseBatchAnswer(b []byte) (BatchAnswer, error) {
	if len(b) > MaxAnswerBytes {
		return BatchAnswer{}, fail(codeBadFrame, "", "the answer has %d bytes, %d are allowed", len(b), MaxAnswerBytes)
	}
	w := wire{scanner{buf: b}}
	w.space()
	a, err := w.answer()
	if err == nil {
		err = w.end()
	}
	if err != nil {
		return BatchAnswer{}, badFrame("answer", err)
	}
	return a, nil
}

func (w *wire) answer() (a BatchAnswer, err *Error) {
	known := []string{"protocol", "from", "to", "verdicts", "applied", "openKeys", "openAll", "clock"}
	err = w.members(known, len(known), func(name string) (err *Error) {
		switch name {
		case "protocol":
			a.Protocol, err = w.protocol()
		case "from":
			a.From, err = w.party()
		case "to":
			a.To, err = w.name()
		case "verdicts":
			a.Verdicts, err = w.outcomes()
		case "applied":
			a.Applied, err = w.uint(maxNumber)
		case "openKeys":
			a.OpenKeys, err = w.keyHashes()
		case "openAll":
			a.OpenAll, err = w.bool()
		case "clock":
			a.Clock, err = w.time()
		}
		return err
	})
	return a, err
}

// outcomes reads the runs of verdicts.
func (w *wire) outcomes() ([]Outcome, *Error) {
	if err := w.open('[', 1); err != nil {
		return nil, err
	}
	var list []Outcome
	for i := 0; ; i++ {
		ok, err := w.element(i == 0)
		if err != nil || !ok {
			return list, err
		}
		o, count, err := w.outcome()
		if err == nil && count > MaxBatchEvents-len(list) {
			err = fail(codeInvalidField, "", "more than %d verdicts", MaxBatchEvents)
		}
		if err != nil {
			return nil, err.at(i)
		}
		list = append(list, slices.Repeat([]Outcome{o}, count)...)
	}
}

// outcome reads a run of equal verdicts.
func (w *wire) outcome() (o Outcome, count int, err *Error) {
	err = w.members([]string{"verdict", "count", "code", "detail"}, 2, func(name string) (err *Error) {
		switch name {
		case "verdict":
			o.Verdict, err = w.verdict()
		case "count":
			var n uint64
			n, err = w.uint(math.MaxInt32)
			count = int(n)
		case "code":
			o.Code, err = w.string(maxCodeBytes)
		case "detail":
			o.Detail, err = w.string(maxDetailBytes)
		}
		return err
	})
	switch {
	case err != nil:
	case count == 0:
		err = fail(codeInvalidField, "/count", "a run has at least one verdict")
	case o.Verdict == Rejected && o.Code == "":
		err = fail(codeMissingField, "/code", "a rejected event needs a code")
	}
	return o, count, err
}

func (w *wire) verdict() (Verdict, *Error) {
	s, err := w.string(maxCodeBytes)
	if err != nil {
		return "", err
	}
	switch v := Verdict(s); v {
	case Stored, Duplicate, Unwanted, Rejected, KeyBusy, Busy:
		return v, nil
	}
	return "", fail(codeInvalidField, "", "unknown verdict %q", s)
}

// keyHashes reads the open keys.
func (w *wire) keyHashes() ([]uint64, *Error) {
	if err := w.open('[', 1); err != nil {
		return nil, err
	}
	var list []uint64
	for i := 0; ; i++ {
		ok, err := w.element(i == 0)
		if err != nil || !ok {
			return list, err
		}
		if i == MaxOpenKeys {
			return nil, fail(codeInvalidField, "", "more than %d open keys", MaxOpenKeys)
		}
		s, err := w.string(16)
		if err != nil {
			return nil, err.at(i)
		}
		n, bad := strconv.ParseUint(s, 16, 64)
		if bad != nil || len(s) != 16 || !isLowerHex(s) {
			return nil, fail(codeInvalidField, "", "a key hash has 16 hexadecimal digits").at(i)
		}
		list = append(list, n)
	}
}

func (w *wire) time() (time.Time, *Error) {
	s, err := w.string(maxTimestampBytes)
	if err != nil {
		return time.Time{}, err
	}
	if wrong := wrongTime(s); wrong != "" {
		return time.Time{}, fail(codeInvalidField, "", "it %s", wrong)
	}
	t, bad := time.Parse(time.RFC3339Nano, s)
	if year := t.UTC().Year(); bad != nil || year < 1 || year > 9999 { // a zone can push it out of what is written with four digits
		return time.Time{}, fail(codeInvalidField, "", "it must be a time in the years 1 to 9999")
	}
	return t.UTC(), nil
}
