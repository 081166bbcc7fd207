package dial

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	directBuffer = 8 << 10
	maxInterim   = 8 // 1xx answers before the real one
)

// errHeaderTooLong is the answer of a server that does not end its headers.
var errHeaderTooLong = errors.New("the headers of the answer are too long")

// A Direct makes requests over plain HTTP/1.1, each from its first to its last byte on the goroutine of its caller. An
// http.Transport hands every request to one goroutine that writes and its answer to another that reads; on the way to an app
// next door, where one request is one event, that costs more than all the rest of the client. Everything that is not a
// request of known length over http goes through the Transport.
//
// Like Transport it has no CloseIdleConnections. The number of connections is that of the requests at once.
type Direct struct {
	other   *Transport
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	timeout time.Duration // after which an idle connection is closed

	mu     sync.Mutex
	idle   map[string][]*directConn // by host; the one used last at the end
	prune  *time.Timer
	closed bool
}

// NewDirect returns a Direct of its own connections. PerHost and HeaderTimeout of its Config hold only for
// what goes through the Transport.
func NewDirect(c Config) *Direct {
	t := NewTransport(c)
	return &Direct{other: t, dial: t.inner.DialContext, timeout: t.inner.IdleConnTimeout, idle: map[string][]*directConn{}}
}

// RoundTrip makes one request. It follows nothing. The time-out is the context's.
func (d *Direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "http" || r.Body != nil && r.ContentLength < 0 {
		return d.other.RoundTrip(r)
	}
	if r.Body != nil {
		defer r.Body.Close()
	}
	c, err := d.conn(r)
	if err != nil {
		return nil, err
	}
	resp, err := c.exchange(r)
	if err != nil {
		c.close()
		if ended := r.Context().Err(); ended != nil {
			err = ended
		}
		return nil, err
	}
	return resp, nil
}

// conn returns an idle connection that is still open, or a new one.
func (d *Direct) conn(r *http.Request) (*directConn, error) {
	host := r.URL.Host
	for {
		c := d.take(host)
		if c == nil {
			break
		}
		if c.alive() {
			return c, nil
		}
		c.close()
	}
	addr := host
	if r.URL.Port() == "" {
		addr = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	raw, err := d.dial(r.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &directConn{Conn: raw, owner: d, host: host}
	c.in, c.out = bufio.NewReaderSize(c, directBuffer), bufio.NewWriterSize(raw, directBuffer)
	return c, nil
}

func (d *Direct) take(host string) *directConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.idle[host]
	if len(all) == 0 {
		return nil
	}
	c := all[len(all)-1]
	all[len(all)-1] = nil
	d.idle[host] = all[:len(all)-1]
	return c
}

func (d *Direct) put(c *directConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		c.close()
		return
	}
	c.idleSince = time.Now()
	d.idle[c.host] = append(d.idle[c.host], c)
	if d.prune == nil {
		d.prune = time.AfterFunc(d.timeout, d.closeOld)
	}
}

// closeOld closes what has not been used for a while.
func (d *Direct) closeOld() {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := 0
	for host, all := range d.idle {
		for len(all) > 0 && time.Since(all[0].idleSince) >= d.timeout {
			all[0].close()
			all[0], all = nil, all[1:]
		}
		left += len(all)
		if d.idle[host] = all; len(all) == 0 {
			delete(d.idle, host)
		}
	}
	d.prune = nil
	if left > 0 && !d.closed {
		d.prune = time.AfterFunc(d.timeout, d.closeOld)
	}
}

// Close closes the idle connections. Requests under way go on.
func (d *Direct) Close() {
	d.other.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.prune != nil {
		d.prune.Stop()
	}
	for _, all := range d.idle {
		for _, c := range all {
			c.close()
		}
	}
	clear(d.idle)
}

// A directConn is one connection, with one request on it at a time.
type directConn struct {
	net.Conn
	owner     *Direct
	host      string
	in        *bufio.Reader
	out       *bufio.Writer
	left      int64 // bytes that headers may still take; -1: reading a body
	failed    error // of the last Read, which ReadResponse takes for a short header
	idleSince time.Time
}

func (c *directConn) close() { _ = c.Conn.Close() } // nobody is left to be told

// Read is what the buffer reads from.
func (c *directConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errHeaderTooLong
	}
	if c.left > 0 && int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	if c.left > 0 {
		c.left -= int64(n)
	}
	if err != nil && err != io.EOF {
		c.failed = err
	}
	return n, err
}

// exchange sends r and reads the headers of its answer, whose body gives the connection back when it is closed.
func (c *directConn) exchange(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	deadline, _ := ctx.Deadline() // zero: none
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // a connection that is closed already needs none
	resp, err := c.talk(r)
	if err != nil {
		stop()
		return nil, err
	}
	body := &directBody{inner: resp.Body, conn: c, stop: stop, ended: resp.Body == http.NoBody, keep: !resp.Close && !r.Close}
	resp.Body = body
	return resp, nil
}

func (c *directConn) talk(r *http.Request) (*http.Response, error) {
	sendErr := r.Write(c.out)
	if sendErr == nil {
		sendErr = c.out.Flush()
	}
	for range maxInterim {
		c.left = maxHeaderBytes
		resp, err := http.ReadResponse(c.in, r) // also if not all was sent: a server may refuse before it has read everything
		c.left = -1
		switch {
		case err != nil:
			return nil, fmt.Errorf("read the answer: %w", cmp.Or(sendErr, c.failed, err))
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, ErrSwitched
		case resp.StatusCode >= 200:
			resp.Close = resp.Close || sendErr != nil
			return resp, nil
		}
	}
	return nil, errors.New("the server sends interim answers only")
}

// A directBody is the body of an answer.
type directBody struct {
	inner  io.ReadCloser
	conn   *directConn
	stop   func() bool
	ended  bool // all of it has been read
	keep   bool // the connection can be used again
	closed bool
}

func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.inner.Read(p)
	if err == io.EOF {
		b.ended = true
	}
	return n, err
}

// Close gives the connection back, or ends it if the body was not read to its end.
func (b *directBody) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	if b.stop() && b.ended && b.keep && b.conn.in.Buffered() == 0 && b.conn.SetDeadline(time.Time{}) == nil {
		b.conn.owner.put(b.conn)
		return nil
	}
	b.conn.close()
	return nil
}
