package event

import (
	"encoding/base64"
	"math"
	"strconv"
)

// maxNumber bounds seqs and times, so that they fit a signed number wherever they go.
const maxNumber = math.MaxInt64

// A wire reads the JSON that sidecars exchange. Members that it does not know are skipped, so that a later version may
// add some; otherwise it is as strict as with an envelope.
type wire struct{ scanner }

// members reads an object. visit reads the value of each member whose name is in known; of these the first so many
// that required says must be there.
func (w *wire) members(known []string, required int, visit func(name string) *Error) *Error {
	if err := w.open('{', 1); err != nil {
		return err
	}
	var seen uint64
	var others names
	for first := true; ; first = false {
		name, ok, err := w.member(first)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		text := w.text(name)
		i := indexOf(known, text)
		switch {
		case i >= 0 && seen&(1<<i) == 0:
			seen |= 1 << i
			if err := visit(known[i]); err != nil {
				return err.under(known[i])
			}
			continue
		case i >= 0 || others.add(text) || isVariant(text, known):
			return fail(codeDuplicateField, "", "the name at byte %d is given twice, or differs from another only by case", name.from-1).under(string(text))
		}
		if err := w.value(1); err != nil {
			return err.under(string(text))
		}
	}
	for i, name := range known[:required] {
		if seen&(1<<i) == 0 {
			return fail(codeMissingField, "", "%s is missing", name)
		}
	}
	return nil
}

func indexOf(list []string, name []byte) int {
	for i, s := range list {
		if s == string(name) {
			return i
		}
	}
	return -1
}

func isVariant(name []byte, known []string) bool {
	_, ok := caseVariant(name, known)
	return ok
}

// uint reads a whole number without sign, up to most.
func (w *wire) uint(most uint64) (uint64, *Error) {
	start := w.pos
	if err := w.value(1); err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(w.buf[start:w.pos]), 10, 64)
	if err != nil || n > most {
		return 0, fail(codeInvalidField, "", "at byte %d there should be a whole number from 0 to %d", start, most)
	}
	return n, nil
}

func (w *wire) bool() (bool, *Error) {
	c := w.peek()
	if err := w.value(1); err != nil {
		return false, err
	}
	if c != 't' && c != 'f' {
		return false, fail(codeInvalidField, "", "there should be true or false, not %s", kindOf(c))
	}
	return c == 't', nil
}

// string reads a string of at most that many bytes, without control characters.
func (w *wire) string(most int) (string, *Error) {
	t, err := w.wantText("it")
	if err != nil {
		return "", err
	}
	s := string(w.text(t))
	if wrong := wrongText(s, most); wrong != "" {
		return "", fail(codeInvalidField, "", "it %s", wrong)
	}
	return s, nil
}

// name reads the name of a service, an instance or a store.
func (w *wire) name() (string, *Error) {
	s, err := w.string(maxNameBytes)
	if err == nil && s == "" {
		err = fail(codeInvalidField, "", "it must not be empty")
	}
	return s, err
}

func (w *wire) party() (p Party, err *Error) {
	err = w.members([]string{"service", "instance", "storeId"}, 3, func(name string) (err *Error) {
		switch name {
		case "service":
			p.Service, err = w.name()
		case "instance":
			p.Instance, err = w.name()
		case "storeId":
			p.StoreID, err = w.name()
		}
		return err
	})
	return p, err
}

// protocol reads the version, which must be ours. It comes first in what we send, so that what another version may
// have changed behind it is not looked at.
func (w *wire) protocol() (int, *Error) {
	n, err := w.uint(math.MaxUint16)
	if err == nil && n != Protocol {
		err = fail(codeUnsupportedProtocol, "", "the other side speaks protocol %d, this sidecar %d", n, Protocol)
	}
	return int(n), err
}

func (w *wire) digest() (d Digest, err *Error) {
	t, err := w.wantText("it")
	if err != nil {
		return d, err
	}
	var raw [len(d) + 3]byte // the decoder may write up to the length that the text could stand for
	text := w.text(t)
	if len(text) == base64.StdEncoding.EncodedLen(len(d)) {
		if n, err := base64.StdEncoding.Strict().Decode(raw[:], text); err == nil && n == len(d) {
			return Digest(raw[:n]), nil
		}
	}
	return d, fail(codeInvalidField, "", "it must be the base64 of %d bytes", len(d))
}
