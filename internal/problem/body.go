package problem

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
)

// firstRead is how much is set aside on the mere word of a Content-Length; the rest once that much has arrived.
const firstRead = 64 << 10

// ReadBody reads the body of r, at most limit bytes, into a slice that is the caller's. Every error is a *Problem:
// unsupported_encoding, too_large (by Content-Length, before anything is read, or else at limit), truncated_body,
// body_timeout. After an error the connection is closed, since the rest of the body may still be on it.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := readBody(w, r, limit)
	if err != nil {
		w.Header().Set("Connection", "close")
	}
	return body, err
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if err := checkEncoding(r.Header); err != nil {
		return nil, err
	}
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	if r.ContentLength == 0 || r.Body == nil {
		return []byte{}, nil
	}
	body, err := readAll(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	if err != nil {
		return nil, readProblem(err, limit)
	}
	return body, nil
}

// readAll reads to the end of body. length is what was announced; negative: nothing was.
func readAll(body io.Reader, length int64) ([]byte, error) {
	buf := make([]byte, 0, 4<<10)
	if length >= 0 {
		buf = make([]byte, 0, min(length, firstRead))
	}
	for {
		if len(buf) == cap(buf) && int64(len(buf)) < length {
			buf = slices.Grow(buf, int(length)-len(buf))
		}
		if int64(len(buf)) == length { // complete: the server keeps what follows for the next request
			return buf, nil
		}
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF && length > int64(len(buf)) {
			return nil, io.ErrUnexpectedEOF
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func readProblem(err error, limit int64) *Problem {
	var p *Problem
	var timeout net.Error
	switch _, over := errors.AsType[*http.MaxBytesError](err); {
	case over:
		p = tooLarge(limit)
	case errors.As(err, &timeout) && timeout.Timeout():
		p = New("body_timeout", "The body did not arrive in time; nothing was stored. Send again.")
	default: // ended early, or chunks that are none
		p = New("truncated_body", "The body ended early or is not framed as announced; nothing was stored.")
	}
	p.cause = err
	return p
}

func tooLarge(limit int64) *Problem {
	return New("too_large", fmt.Sprintf("The body is larger than %d bytes; nothing was stored. Send it in smaller parts.", limit)).
		With("maxBytes", limit)
}

func checkEncoding(h http.Header) error {
	for _, v := range h["Content-Encoding"] {
		if v != "" && !strings.EqualFold(v, "identity") {
			return New("unsupported_encoding", "Send the body without Content-Encoding: nothing is decompressed here.")
		}
	}
	return nil
}

// CheckMediaType returns which of allowed the Content-Type of r is. Parameters of an allowed type must be there as they
// are; a charset may be, if it is utf-8; others are ignored. An error is a *Problem with unsupported_media_type.
func CheckMediaType(r *http.Request, allowed ...string) (string, error) {
	values := r.Header["Content-Type"]
	if len(values) == 1 && slices.Contains(allowed, values[0]) {
		return values[0], nil // the usual case, without parsing
	}
	if len(values) == 1 {
		for _, a := range allowed {
			if mediaTypeIs(values[0], a) {
				return a, nil
			}
		}
	}
	return "", New("unsupported_media_type", "Send Content-Type: "+strings.Join(allowed, " or ")+", once, in UTF-8.")
}

func mediaTypeIs(got, want string) bool {
	gotType, gotParams, err := mime.ParseMediaType(got)
	if err != nil {
		return false
	}
	wantType, wantParams, err := mime.ParseMediaType(want)
	if err != nil || gotType != wantType {
		return false
	}
	for name, value := range wantParams {
		if gotParams[name] != value {
			return false
		}
	}
	charset, given := gotParams["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}
