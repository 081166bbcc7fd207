package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
)

const maxListenBytes = 4 << 20 // of one request

func (p *program) listenCommand() *cli.Command {
	return &cli.Command{
		Name:  "listen",
		Usage: "stand in for an app: print what the sidecar forwards",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "port", Value: 8080, Usage: "`PORT` on loopback; 0: any free one"},
			&cli.StringFlag{Name: "path", Value: "/events", Usage: "`PATH` that takes events"},
			&cli.IntFlag{Name: "status", Value: http.StatusOK, Usage: "answer with this HTTP `STATUS`"},
			&cli.Float64Flag{Name: "fail-rate", Usage: "answer `PART` of the requests, 0 to 1, with 500 instead"},
			outputFlag(),
		},
		Action: p.listen,
	}
}

func (p *program) listen(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	status, rate, port := c.Int("status"), c.Float64("fail-rate"), c.Int("port")
	switch {
	case status < 200 || status > 599:
		return misuse("--status %d is no HTTP status of an answer", status)
	case !(rate >= 0 && rate <= 1):
		return misuse("--fail-rate is a number from 0 to 1")
	case port < 0 || port > 65535:
		return misuse("--port is a number from 0 to 65535")
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("%w; choose another --port", err)
	}
	app := &standIn{out: p.stdout, format: format, status: status, failRate: rate}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+c.String("path"), app.take)
	fmt.Fprintf(p.stderr, "listening on http://%s%s\n", l.Addr(), c.String("path"))
	return serveUntil(c.Context, l, mux)
}

// serveUntil serves until ctx ends, which is no failure.
func serveUntil(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return err
	}
	return <-stopped
}

// A standIn prints events and answers them.
type standIn struct {
	format   string
	status   int
	failRate float64

	mu  sync.Mutex // one event at a time
	out io.Writer
}

// arrival is a request as ndjson shows it.
type arrival struct {
	At       time.Time         `json:"at"`
	Path     string            `json:"path"`
	Answered int               `json:"answered"`
	Header   map[string]string `json:"header"`
	Body     json.RawMessage   `json:"body"` // text that is not JSON is a string
}

func (s *standIn) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxListenBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	status := s.status
	if rand.Float64() < s.failRate {
		status = http.StatusInternalServerError
	}
	if err := s.print(r, body, status); err != nil {
		http.Error(w, "cannot print", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
}

func (s *standIn) print(r *http.Request, body []byte, status int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.format == "table" {
		_, err := io.WriteString(s.out, describe(r.Header, body, status, time.Now()))
		return err
	}
	a := arrival{At: time.Now().UTC(), Path: r.URL.Path, Answered: status, Header: map[string]string{}, Body: body}
	for name, values := range r.Header {
		a.Header[name] = strings.Join(values, ", ")
	}
	if !json.Valid(body) {
		text, err := json.Marshal(string(body))
		if err != nil {
			return err
		}
		a.Body = text
	}
	return printJSON(s.out, s.format, a)
}

// describe writes an event for people: a line about it and a line with what it says.
func describe(h http.Header, body []byte, status int, at time.Time) string {
	var e struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
	}
	text := string(body)
	if json.Unmarshal(body, &e) == nil && e.Data != nil {
		text = string(e.Data)
	}
	line := []string{at.Format("15:04:05.000"), orDash(h.Get("X-Event-Type")), orDash(h.Get("X-Event-ID")), "from " + orDash(h.Get("X-Event-Source"))}
	if e.Key != "" {
		line = append(line, "key "+e.Key)
	}
	if attempt := h.Get("X-Delivery-Attempt"); attempt != "" && attempt != "1" {
		line = append(line, "attempt "+attempt)
	}
	if h.Get("X-Delivery-Redelivered") == "true" {
		line = append(line, "redelivered")
	}
	line = append(line, fmt.Sprintf("-> %d", status))
	return oneLine(strings.Join(line, "  ")) + "\n    " + oneLine(text) + "\n"
}
