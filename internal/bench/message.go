package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const maxMessageBytes = 8 << 20

var errMessage = errors.New("not an HTTP/1 message")

// A message is one HTTP/1 request or answer, read with as little work as can be,
// so that what is measured is the sidecar. Its slices are reused by the next read.
type message struct {
	first   []byte // request line or status line, without its end
	body    []byte
	closing bool // the peer will close the connection
}

// read takes the next message from r. io.EOF means that none began.
func (m *message) read(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if len(line) > 0 && err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	m.first = append(m.first[:0], bytes.TrimRight(line, "\r\n")...)
	m.body, m.closing = m.body[:0], false
	length, chunked, err := m.header(r)
	if err != nil {
		return unexpected(err)
	}
	if chunked {
		return unexpected(m.chunks(r))
	}
	return unexpected(m.extend(r, length))
}

// header reads up to the empty line.
func (m *message) header(r *bufio.Reader) (length int64, chunked bool, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			return length, chunked, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 {
				return 0, false, fmt.Errorf("%w: length %q", errMessage, value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("Connection")):
			m.closing = bytes.EqualFold(value, []byte("close"))
		}
	}
}

func (m *message) chunks(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(";"))
		n, err := strconv.ParseInt(string(size), 16, 64)
		if err != nil {
			return fmt.Errorf("%w: chunk %q", errMessage, size)
		}
		if n == 0 {
			_, _, err := m.header(r) // trailers end as headers do
			return err
		}
		if err := m.extend(r, n); err != nil {
			return err
		}
		if _, err := r.Discard(len("\r\n")); err != nil {
			return err
		}
	}
}

// extend adds n bytes of r to the body.
func (m *message) extend(r *bufio.Reader, n int64) error {
	have := len(m.body)
	if n < 0 || int64(have)+n > maxMessageBytes {
		return fmt.Errorf("%w: %d bytes", errMessage, n)
	}
	if need := have + int(n); need > cap(m.body) {
		m.body = append(make([]byte, 0, 2*need), m.body...)
	}
	m.body = m.body[:have+int(n)]
	_, err := io.ReadFull(r, m.body[have:])
	return err
}

// status returns the code of an answer, 0 if it is none.
func (m *message) status() int {
	if len(m.first) < len("HTTP/1.1 200") || !bytes.HasPrefix(m.first, []byte("HTTP/1.")) {
		return 0
	}
	code, _ := strconv.Atoi(string(m.first[9:12]))
	return code
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
