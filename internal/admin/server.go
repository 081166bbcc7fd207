package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hooksidecar/hooksidecar/internal/deadletter"
	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// A Node is what the server shows and controls. Methods may be called at the same time.
type Node interface {
	Status() (Status, error)
	Readiness() Readiness
	Peers() []Peer
	Subscribers() []Subscriber
	// Event returns what is known of the events with id, of any source if source is "". Nothing is no error.
	Event(ctx context.Context, source, id string) (Event, error)
	Letters(Query) (Letters, error)
	// Letter returns deadletter.ErrNotFound if there is none.
	Letter(id string) (Letter, error)
	// Replay returns deadletter.ErrNotFound, or a *problem.Problem if the letter is in no state for it.
	Replay(ctx context.Context, id string) error
	// Backup writes the store as it is now. Its errors are *problem.Problem, or those of the store or of w.
	Backup(w io.Writer) error
	// ResumeInbox ends a pause of forwarding. accept says that dead letters are right and not a bad deploy.
	ResumeInbox(accept bool)
}

// A Server answers the admin API. Its Serve methods are handlers, one per route.
type Server struct {
	node Node
	log  *slog.Logger
}

// NewServer returns a Server for node. What goes wrong inside is logged, and only its code answered.
func NewServer(node Node, log *slog.Logger) *Server { return &Server{node: node, log: log} }

// ServeHealth answers GET /healthz: the process is alive.
func (s *Server) ServeHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n")) // a client that is gone does not matter
}

// ServeReady answers GET /readyz: 200 once events can be taken, else 503, both with every part.
func (s *Server) ServeReady(w http.ResponseWriter, _ *http.Request) {
	r := s.node.Readiness()
	status := http.StatusOK
	if !r.Ready {
		status = http.StatusServiceUnavailable
	}
	write(w, status, r)
}

// ServeStatus answers GET /api/v1/status.
func (s *Server) ServeStatus(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); !ok {
		return
	}
	status, err := s.node.Status()
	s.answer(w, r, status, err)
}

// ServePeers answers GET /api/v1/peers.
func (s *Server) ServePeers(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); ok {
		write(w, http.StatusOK, map[string][]Peer{"peers": s.node.Peers()})
	}
}

// ServeSubscribers answers GET /api/v1/subscribers.
func (s *Server) ServeSubscribers(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); ok {
		write(w, http.StatusOK, map[string][]Subscriber{"subscribers": s.node.Subscribers()})
	}
}

// ServeEvent answers GET /api/v1/events/{id}?source=.
func (s *Server) ServeEvent(w http.ResponseWriter, r *http.Request) {
	query, ok := parameters(w, r, "source")
	if !ok {
		return
	}
	id := r.PathValue("id")
	if !printable(id) {
		problem.Write(w, problem.New("invalid_field", "an event id is 1 to 256 printable bytes"))
		return
	}
	e, err := s.node.Event(r.Context(), query.Get("source"), id)
	if err == nil && len(e.Published) == 0 && len(e.Received) == 0 {
		err = problem.New("not_found", "no event "+id+" is known here; an event that was received is found by its source too: ?source=")
	}
	s.answer(w, r, e, err)
}

// ServeLetters answers GET /api/v1/dead-letters.
func (s *Server) ServeLetters(w http.ResponseWriter, r *http.Request) {
	query, ok := parameters(w, r, "side", "subscriber", "type", "reason", "state", "limit", "after")
	if !ok {
		return
	}
	q, err := parseQuery(query)
	if err != nil {
		problem.Write(w, problem.New("invalid_field", err.Error()))
		return
	}
	page, err := s.node.Letters(q)
	s.answer(w, r, page, err)
}

// ServeLetter answers GET /api/v1/dead-letters/{id}.
func (s *Server) ServeLetter(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); !ok {
		return
	}
	l, err := s.node.Letter(r.PathValue("id"))
	var text []byte
	if err == nil {
		text, err = l.Append(nil, false)
	}
	if err != nil {
		s.refuse(w, r, letterError(r, err))
		return
	}
	writeJSON(w, http.StatusOK, text)
}

// ServeReplay answers POST /api/v1/dead-letters/{id}/replay.
func (s *Server) ServeReplay(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); !ok || !isJSON(w, r) {
		return
	}
	id := r.PathValue("id")
	if err := letterError(r, s.node.Replay(r.Context(), id)); err != nil {
		s.refuse(w, r, err)
		return
	}
	write(w, http.StatusAccepted, map[string]string{"id": id, "state": deadletter.Replaying})
}

// ServeResume answers POST /api/v1/inbox/resume?accept=.
func (s *Server) ServeResume(w http.ResponseWriter, r *http.Request) {
	query, ok := parameters(w, r, "accept")
	if !ok || !isJSON(w, r) {
		return
	}
	accept := query.Get("accept")
	if accept != "" && accept != "true" && accept != "false" {
		problem.Write(w, problem.New("invalid_field", "accept is true or false"))
		return
	}
	s.node.ResumeInbox(accept == "true")
	write(w, http.StatusAccepted, map[string]bool{"accept": accept == "true"})
}

// ServeBackup answers GET /api/v1/backup with the whole store as it is now. A backup that fails on the way is cut off, so that
// nobody takes it for a whole one.
func (s *Server) ServeBackup(w http.ResponseWriter, r *http.Request) {
	if _, ok := parameters(w, r); !ok {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	out := &stream{w: w, control: http.NewResponseController(w)}
	if r.Method == http.MethodHead {
		out.begin()
		return
	}
	err := s.node.Backup(out)
	switch {
	case err != nil && !out.begun:
		s.refuse(w, r, err)
	case err != nil:
		level := slog.LevelError
		if out.err != nil {
			level = slog.LevelWarn // whoever asked has gone away
		}
		s.log.Log(r.Context(), level, "backup broke off", "err", err)
		panic(http.ErrAbortHandler)
	default:
		s.log.Info("backup written", "bytes", out.bytes)
	}
}

// streamPatience is how long a client may take to read what is written to it at once.
const streamPatience = 30 * time.Second

// A stream is an answer that may take longer than others, as long as it goes on.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
	bytes   int64
	err     error // of writing
}

func (s *stream) begin() {
	s.begun = true
	s.w.Header().Set("Content-Type", "application/octet-stream")
}

func (s *stream) Write(b []byte) (int, error) {
	if !s.begun {
		s.begin()
	}
	if s.err = s.control.SetWriteDeadline(time.Now().Add(streamPatience)); s.err != nil {
		return 0, s.err
	}
	var n int
	n, s.err = s.w.Write(b)
	s.bytes += int64(n)
	return n, s.err
}

// letterError turns the sentinel into what a caller can act on.
func letterError(r *http.Request, err error) error {
	if errors.Is(err, deadletter.ErrNotFound) {
		return problem.New("not_found", "no dead letter "+r.PathValue("id"))
	}
	return err
}

// parameters returns the query if it holds nothing but the names that are known, each once. Else it answers and returns false.
func parameters(w http.ResponseWriter, r *http.Request, known ...string) (url.Values, bool) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		problem.Write(w, problem.New("invalid_field", "the query cannot be read: "+err.Error()))
		return nil, false
	}
next:
	for name, values := range query {
		for _, k := range known {
			if name == k && len(values) == 1 {
				continue next
			}
		}
		text := "there is no parameter " + strconv.Quote(name)
		if len(values) > 1 {
			text = "parameter " + strconv.Quote(name) + " is given more than once"
		}
		problem.Write(w, problem.New("invalid_field", text))
		return nil, false
	}
	return query, true
}

// isJSON answers and returns false if r does not say that it carries JSON: a form on a web page cannot say that.
func isJSON(w http.ResponseWriter, r *http.Request) bool {
	if _, err := problem.CheckMediaType(r, "application/json"); err != nil {
		problem.Write(w, problem.From(err))
		return false
	}
	return true
}

func parseQuery(v url.Values) (Query, error) {
	q := Query{Side: v.Get("side"), Subscriber: v.Get("subscriber"), Type: v.Get("type"), Reason: v.Get("reason"),
		State: v.Get("state"), After: v.Get("after")}
	if text := v.Get("limit"); text != "" || v.Has("limit") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxLimit || text[0] == '+' {
			return q, errors.New("limit is a number from 1 to " + strconv.Itoa(MaxLimit))
		}
		q.Limit = n
	}
	return q, q.Check()
}

var letterID = regexp.MustCompile(`^dl_[0-9a-f]{32}$`)

// Check returns what is wrong with q, nil if nothing is.
func (q Query) Check() error {
	switch q.Side {
	case "", deadletter.Outbox, deadletter.Inbox:
	default:
		return errors.New("side is outbox or inbox")
	}
	switch q.State {
	case "", deadletter.Dead, deadletter.Waiting, deadletter.Replaying, deadletter.Resolved, deadletter.Purged:
	default:
		return errors.New("state is dead, waiting, replaying, resolved or purged")
	}
	if q.After != "" && !letterID.MatchString(q.After) {
		return errors.New("after is the id of a dead letter, dl_ and 32 hex digits")
	}
	if q.Type != "" {
		if _, err := event.ParsePattern(q.Type); err != nil {
			return err
		}
	}
	return nil
}

// printable reports whether id can be an event's.
func printable(id string) bool {
	if id == "" || len(id) > event.MaxIDBytes || !utf8.ValidString(id) {
		return false
	}
	for _, r := range id {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	write(w, http.StatusOK, v)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problem.From(err)
	if p.Logged() {
		s.log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	problem.Write(w, p)
}

func write(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		problem.Write(w, problem.From(err))
		return
	}
	writeJSON(w, status, text)
}

func writeJSON(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // a client that is gone does not matter
}
