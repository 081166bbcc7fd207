package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"
)

// A client posts bodies over one kept connection, one at a time.
type client struct {
	host, path string
	conn       net.Conn
	r          *bufio.Reader
	out        []byte
	answer     message // of the last post
}

// newClient returns a client for an http URL on loopback; no other is taken.
func newClient(target string) (*client, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "http" || ip == nil || !ip.IsLoopback() || u.Port() == "" {
		return nil, fmt.Errorf("%s: want http, a loopback address and a port", target)
	}
	return &client{host: u.Host, path: u.RequestURI()}, nil
}

// post sends body and returns the status. An error leaves the outcome unknown
// and the next post dials again.
func (c *client) post(body []byte) (int, error) {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.host, 5*time.Second)
		if err != nil {
			return 0, err
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 16<<10)
	}
	status, err := c.roundTrip(body)
	if err != nil || c.answer.closing {
		err = errors.Join(err, c.close())
	}
	return status, err
}

func (c *client) roundTrip(body []byte) (int, error) {
	b := append(c.out[:0], "POST "...)
	b = append(b, c.path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.host...)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	c.out = append(b, body...)
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, err
	}
	if err := c.answer.read(c.r); err != nil {
		return 0, unexpected(err)
	}
	if status := c.answer.status(); status != 0 {
		return status, nil
	}
	return 0, fmt.Errorf("%w: %.40q", errMessage, c.answer.first)
}

func (c *client) close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}
