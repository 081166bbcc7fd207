package sidecar

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// A route is one thing that a listener serves. Its path is matched exactly as it was sent: the standard mux would redirect
// //outbox, and take %6futbox for outbox, and what it forwards that way escapes checks made on the path.
type route struct {
	method string
	path   string // {name} stands for one segment that is not empty
	handle http.HandlerFunc
	open   bool // needs no token
}

// A router serves a list of routes, and answers what is in none of them with a problem.
type router struct {
	routes []route
	tokens [][]byte // who brings none of them is refused, except from routes that are open; none: everybody may
}

func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, route := range rt.routes {
		values, ok := match(route.path, r.URL.EscapedPath())
		if !ok {
			continue
		}
		if r.Method != route.method && (r.Method != http.MethodHead || route.method != http.MethodGet) {
			allow = append(allow, route.method)
			continue
		}
		if !route.open && !rt.authorized(w, r) {
			return
		}
		for name, value := range values {
			r.SetPathValue(name, value)
		}
		route.handle(w, r)
		return
	}
	if !rt.authorized(w, r) {
		return
	}
	if len(allow) == 0 {
		problem.Write(w, problem.New("not_found", "there is nothing at "+r.Method+" "+clip(r.URL.Path)))
		return
	}
	if slices.Contains(allow, http.MethodGet) {
		allow = append(allow, http.MethodHead)
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	problem.Write(w, problem.New("method_not_allowed", clip(r.URL.Path)+" takes "+strings.Join(allow, ", ")))
}

// match compares path, as it was sent, with pattern segment by segment. Only what stands for a {name} may be escaped.
func match(pattern, path string) (values map[string]string, ok bool) {
	for {
		want, moreWanted, wanted := strings.Cut(pattern, "/")
		have, moreHad, had := strings.Cut(path, "/")
		if name, wild := strings.CutPrefix(want, "{"); wild {
			value, err := url.PathUnescape(have)
			if err != nil || value == "" {
				return nil, false
			}
			if values == nil {
				values = map[string]string{}
			}
			values[strings.TrimSuffix(name, "}")] = value
		} else if want != have {
			return nil, false
		}
		if wanted != had {
			return nil, false
		}
		if !wanted {
			return values, true
		}
		pattern, path = moreWanted, moreHad
	}
}

// clip shortens what came from outside before it goes into an answer.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
