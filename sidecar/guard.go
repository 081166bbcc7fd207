package sidecar

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// A guard stands in front of the routes of a listener. A page in a browser can send requests to loopback, also under a name
// of its own that it has let point there (DNS rebinding); the guard refuses those. It never answers with CORS headers.
type guard struct {
	next   http.Handler
	hosts  []string // values of Host that are taken; nil: any
	origin originRule
	log    *slog.Logger
	panics *metrics.Counter
}

// An originRule says what a listener refuses of what browsers send.
type originRule int

const (
	noOrigin   originRule = iota // Origin: no browser is meant to be here
	noBrowser                    // Sec-Fetch-Site too. Not Sec-Fetch-Mode: Node's fetch sends that
	sameOrigin                   // only what comes from pages of another origin
)

func (g *guard) ServeHTTP(plain http.ResponseWriter, r *http.Request) {
	w := &watched{ResponseWriter: plain}
	defer g.recover(w, r)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case g.hosts != nil && (r.URL.Host != "" || !slices.Contains(g.hosts, r.Host)):
		problem.Write(w, problem.New("wrong_host", "this listener answers only to "+strings.Join(g.hosts, ", ")+", sent as Host"))
	case g.foreign(r):
		problem.Write(w, problem.New("browser_request", "requests from web pages are refused: this listener is for programs"))
	default:
		g.next.ServeHTTP(w, r)
	}
}

// foreign reports whether a browser sent r on behalf of a page that has no business here.
func (g *guard) foreign(r *http.Request) bool {
	origin, site := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	switch g.origin {
	case noOrigin:
		return origin != nil
	case noBrowser:
		return origin != nil || site != nil
	}
	own := func(o string) bool { return o == "http://"+r.Host }
	harmless := func(s string) bool { return s == "same-origin" || s == "none" }
	return slices.ContainsFunc(origin, func(o string) bool { return !own(o) }) ||
		slices.ContainsFunc(site, func(s string) bool { return !harmless(s) })
}

// recover turns a panic into an answer, where that can be a true one: a problem says that nothing was stored, and nobody knows how
// far a POST had come. That, and an answer that has begun, is cut off. The other requests have nothing to do with it.
func (g *guard) recover(w *watched, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	g.panics.Inc()
	g.log.Error("handler panicked", "method", r.Method, "path", clip(r.URL.Path), "panic", v, "stack", string(debug.Stack()))
	if w.begun || r.Method != http.MethodGet && r.Method != http.MethodHead {
		panic(http.ErrAbortHandler)
	}
	problem.Write(w, problem.New("internal", "this is a fault of the sidecar; its log says more"))
}

// watched knows whether an answer has begun.
type watched struct {
	http.ResponseWriter
	begun bool
}

func (w *watched) WriteHeader(status int) {
	w.begun = w.begun || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach what the server can do.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// authorized checks the bearer token, if the listener asks for one, and answers if it is missing or wrong.
func (rt *router) authorized(w http.ResponseWriter, r *http.Request) bool {
	if len(rt.tokens) == 0 {
		return true
	}
	given := r.Header["Authorization"]
	if len(given) > 1 {
		problem.Write(w, problem.New("duplicate_header", "Authorization is there more than once"))
		return false
	}
	if len(given) == 1 {
		scheme, token, _ := strings.Cut(given[0], " ")
		sum := sha256.Sum256([]byte(token))
		known := 0
		for _, t := range rt.tokens {
			known |= subtle.ConstantTimeCompare(sum[:], t)
		}
		if strings.EqualFold(scheme, "Bearer") && known == 1 {
			return true
		}
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	problem.Write(w, problem.New("unauthorized", "send the token of admin.token_file as Authorization: Bearer …"))
	return false
}

// tokenSums returns what tokens are compared by: sums of equal length, so that the time taken says nothing.
func tokenSums(tokens []string) [][]byte {
	var sums [][]byte
	for _, t := range tokens {
		sum := sha256.Sum256([]byte(t))
		sums = append(sums, sum[:])
	}
	return sums
}
