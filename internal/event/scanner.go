package event

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// A scanner reads JSON text by its position in buf and checks all of it: syntax, UTF-8, surrogate pairs, nesting.
// It never changes or copies buf; only text of strings with escapes is new memory.
type scanner struct {
	buf []byte
	pos int
}

// A token is the place of a string's content in the buffer, without the quotes.
type token struct {
	from, to int
	escaped  bool // there are backslashes in it
}

// len returns the length of the content as it is written: at least that of its text.
func (t token) len() int { return t.to - t.from }

// space moves to the next byte that is not white space.
func (s *scanner) space() {
	for s.pos < len(s.buf) {
		switch s.buf[s.pos] {
		case ' ', '\n', '\t', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the byte at the position, 0 at the end. (A zero byte in the text is wrong wherever peek is used.)
func (s *scanner) peek() byte {
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// unexpected is the error for what stands at the position when want should.
func (s *scanner) unexpected(want string) *Error {
	if s.pos >= len(s.buf) {
		return fail(codeInvalidJSON, "", "the text ends at byte %d where %s should be", s.pos, want)
	}
	return fail(codeInvalidJSON, "", "%s at byte %d where %s should be", quoteByte(s.buf[s.pos]), s.pos, want)
}

func quoteByte(c byte) string {
	if c < utf8.RuneSelf {
		return strconv.QuoteRuneToASCII(rune(c))
	}
	return "byte 0x" + strconv.FormatUint(uint64(c), 16)
}

// open enters an object or array: c is its bracket, and depth counts it.
func (s *scanner) open(c byte, depth int) *Error {
	if s.peek() != c {
		if c == '{' {
			return s.unexpected("an object")
		}
		return s.unexpected("an array")
	}
	if depth > MaxDepth {
		return fail(codeTooDeep, "", "more than %d levels of nesting at byte %d", MaxDepth, s.pos)
	}
	s.pos++
	return nil
}

// member moves to the value of an object's next member and returns its name; ok is false, and the object left, at its
// end. first is true for the first call after open.
func (s *scanner) member(first bool) (name token, ok bool, err *Error) {
	if ok, err := s.next('}', first); !ok || err != nil {
		return token{}, false, err
	}
	if s.peek() != '"' {
		return token{}, false, s.unexpected("a member name in quotes")
	}
	if name, err = s.str(); err != nil {
		return token{}, false, err
	}
	s.space()
	if s.peek() != ':' {
		return token{}, false, s.unexpected("':'")
	}
	s.pos++
	s.space()
	return name, true, nil
}

// element moves to an array's next element, as member does in an object.
func (s *scanner) element(first bool) (ok bool, err *Error) { return s.next(']', first) }

// next moves over the comma before the next member or element, or over the closing bracket.
func (s *scanner) next(closing byte, first bool) (ok bool, err *Error) {
	s.space()
	switch c := s.peek(); {
	case c == closing:
		s.pos++
		return false, nil
	case first:
		return true, nil
	case c != ',':
		return false, s.unexpected("',' or " + quoteByte(closing))
	}
	s.pos++
	s.space()
	return true, nil
}

// value moves over one value of any kind. depth is the number of levels that are open around it.
func (s *scanner) value(depth int) *Error {
	switch c := s.peek(); c {
	case '"':
		_, err := s.str()
		return err
	case '{':
		return s.object(depth + 1)
	case '[':
		return s.array(depth + 1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		if c == '-' || isDigit(c) {
			return s.number()
		}
		return s.unexpected("a value")
	}
}

func (s *scanner) object(depth int) *Error {
	if err := s.open('{', depth); err != nil {
		return err
	}
	for first := true; ; first = false {
		name, ok, err := s.member(first)
		if err != nil || !ok {
			return err
		}
		if err := s.value(depth); err != nil {
			return err.under(string(s.text(name)))
		}
	}
}

func (s *scanner) array(depth int) *Error {
	if err := s.open('[', depth); err != nil {
		return err
	}
	for i := 0; ; i++ {
		ok, err := s.element(i == 0)
		if err != nil || !ok {
			return err
		}
		if err := s.value(depth); err != nil {
			return err.at(i)
		}
	}
}

func (s *scanner) literal(word string) *Error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return s.unexpected("the word " + word)
		}
		s.pos++
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number moves over a number of any size.
func (s *scanner) number() *Error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
		if isDigit(s.peek()) {
			return s.unexpected("the end of a number that begins with 0")
		}
	} else if err := s.digits(); err != nil {
		return err
	}
	if s.peek() == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return nil
}

func (s *scanner) digits() *Error {
	if !isDigit(s.peek()) {
		return s.unexpected("a digit")
	}
	for isDigit(s.peek()) {
		s.pos++
	}
	return nil
}

// Eight bytes at a time: a byte of stops(w) has its highest bit set if the same byte of w, or one before it, is a
// quote, a backslash, a control character or not ASCII. The lowest such bit is exact: a borrow only goes upwards.
func stops(w uint64) uint64 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	return ((w - ones*0x20) | ((w ^ ones*'"') - ones) | ((w ^ ones*'\\') - ones) | w) & highs
}

// str moves over the string that begins at the position.
func (s *scanner) str() (token, *Error) {
	start := s.pos
	t := token{from: start + 1}
	i := start + 1
	for {
		for i+8 <= len(s.buf) {
			m := stops(binary.LittleEndian.Uint64(s.buf[i:]))
			if m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				break
			}
			i += 8
		}
		if i >= len(s.buf) {
			s.pos = i
			return t, fail(codeInvalidJSON, "", "the string that begins at byte %d does not end", start)
		}
		switch c := s.buf[i]; {
		case c == '"':
			t.to, s.pos = i, i+1
			return t, nil
		case c == '\\':
			t.escaped = true
			n, err := s.escape(i)
			if err != nil {
				return t, err
			}
			i += n
		case c < 0x20:
			return t, fail(codeInvalidJSON, "", "control character 0x%02x at byte %d must be escaped in a string", c, i)
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(s.buf[i:])
			if r == utf8.RuneError && n == 1 {
				return t, fail(codeInvalidUTF8, "", "byte 0x%02x at byte %d is not UTF-8", c, i)
			}
			i += n
		}
	}
}

// escape checks the escape sequence at i and returns its length; that of a surrogate pair is one of 12 bytes.
func (s *scanner) escape(i int) (int, *Error) {
	if i+1 >= len(s.buf) {
		return 0, fail(codeInvalidJSON, "", "the text ends at byte %d in an escape sequence", len(s.buf))
	}
	switch s.buf[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
	default:
		return 0, fail(codeInvalidJSON, "", "unknown escape sequence at byte %d", i)
	}
	r, ok := s.hex(i)
	switch {
	case !ok:
		return 0, fail(codeInvalidJSON, "", "\\u without four hexadecimal digits at byte %d", i)
	case !utf16.IsSurrogate(r):
		return 6, nil
	}
	if low, ok := s.hex(i + 6); !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0, fail(codeInvalidUTF8, "", "half of a surrogate pair at byte %d", i)
	}
	return 12, nil
}

// hex returns the number of the \uXXXX at i.
func (s *scanner) hex(i int) (rune, bool) {
	if i+6 > len(s.buf) || s.buf[i] != '\\' || s.buf[i+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s.buf[i+2 : i+6] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// text returns what a string says: part of the buffer, or new memory if there are escapes in it.
func (s *scanner) text(t token) []byte {
	if !t.escaped {
		return s.buf[t.from:t.to]
	}
	return s.appendText(make([]byte, 0, t.len()), t)
}

// appendText appends what a string says.
func (s *scanner) appendText(dst []byte, t token) []byte {
	if !t.escaped {
		return append(dst, s.buf[t.from:t.to]...)
	}
	for i := t.from; i < t.to; {
		c := s.buf[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch c := s.buf[i+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := s.hex(i)
			if utf16.IsSurrogate(r) {
				low, _ := s.hex(i + 6)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
			i += 4
		default:
			dst = append(dst, c)
		}
		i += 2
	}
	return dst
}

// end checks that nothing but white space is left.
func (s *scanner) end() *Error {
	s.space()
	if s.pos < len(s.buf) {
		return fail(codeTrailingData, "", "more data at byte %d, after the end of the JSON value", s.pos)
	}
	return nil
}
