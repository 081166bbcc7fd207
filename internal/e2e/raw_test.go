package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A wire is a raw connection to a listener: it sends exactly the bytes that a test wants.
type wire struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialWire(t *testing.T, address string) *wire {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(slowdown(15 * time.Second)))
	return &wire{conn: conn, in: bufio.NewReader(conn)}
}

// send writes bytes. A listener may have answered and closed before all was written: that is no error here.
func (w *wire) send(raw []byte) { _, _ = w.conn.Write(raw) }

// endOfInput says that nothing more comes, and still listens.
func (w *wire) endOfInput() {
	if tcp, ok := w.conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// closedSilently stands in place of a status for a connection that was closed without an answer.
const closedSilently = 0

// answer reads one response; closedSilently if the listener closed the connection instead. An interim 100 is read over.
func (w *wire) answer() (reply, error) {
	for {
		resp, err := http.ReadResponse(w.in, nil)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
			return reply{status: closedSilently}, nil
		case err != nil:
			return reply{}, fmt.Errorf("read answer: %w", err)
		case resp.StatusCode == http.StatusContinue:
			continue
		}
		return readReply(resp)
	}
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "connection reset") }

// A request is the text of an HTTP request that may be wrong in any part.
type request struct {
	line    string   // "": POST of the path of the table
	headers []string // added after the usual ones; "-Name" leaves a usual one out
	body    string
}

// bytes renders a request for a listener. The usual headers are Host, Content-Type and Content-Length.
func (r request) bytes(line, host string) []byte {
	if r.line != "" {
		line = r.line
	}
	usual := map[string]string{"Host": host, "Content-Type": "application/json", "Content-Length": fmt.Sprint(len(r.body))}
	var extra []string
	for _, h := range r.headers {
		if name, out := strings.CutPrefix(h, "-"); out {
			delete(usual, name)
		} else {
			extra = append(extra, strings.ReplaceAll(h, "HOST", host))
		}
	}
	var b bytes.Buffer
	b.WriteString(strings.ReplaceAll(line, "HOST", host) + "\r\n")
	for _, name := range []string{"Host", "Content-Type", "Content-Length"} {
		if value, ok := usual[name]; ok {
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	for _, h := range extra {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n" + r.body)
	return b.Bytes()
}
