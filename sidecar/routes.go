package sidecar

import (
	"net/http"
	"net/http/pprof"

	"github.com/VictoriaMetrics/metrics"
)

// appRoutes is what the app next door can do.
func (n *Node) appRoutes() []route {
	return []route{
		{method: "POST", path: "/outbox", handle: n.outbox.ServePublish},
		{method: "POST", path: "/outbox/batch", handle: n.outbox.ServeBatch},
		{method: "GET", path: "/outbox/events/{id}", handle: n.outbox.ServeEvent},
	}
}

// peerRoutes is what other sidecars can do. Each handler checks signatures itself.
func (n *Node) peerRoutes() []route {
	return []route{
		{method: "POST", path: "/inbox/batch", handle: n.inbox.ServeBatch},
		{method: "POST", path: "/inbox", handle: n.inbox.ServeEvent},
		{method: "POST", path: "/peer/v1/known", handle: n.inbox.ServeKnown},
		{method: "GET", path: "/peer/v1/descriptor", handle: n.directory.ServeDescriptor},
		{method: "POST", path: "/peer/v1/descriptor", handle: n.directory.ServeDescriptor},
	}
}

// adminRoutes is what operators can do.
func (n *Node) adminRoutes() []route {
	api := n.operations()
	routes := []route{
		{method: "GET", path: "/healthz", handle: api.ServeHealth, open: true},
		{method: "GET", path: "/readyz", handle: api.ServeReady, open: true},
		{method: "GET", path: "/metrics", handle: n.serveMetrics},
		{method: "GET", path: "/api/v1/status", handle: api.ServeStatus},
		{method: "GET", path: "/api/v1/backup", handle: api.ServeBackup},
		{method: "GET", path: "/api/v1/peers", handle: api.ServePeers},
		{method: "GET", path: "/api/v1/subscribers", handle: api.ServeSubscribers},
		{method: "GET", path: "/api/v1/events/{id}", handle: api.ServeEvent},
		{method: "GET", path: "/api/v1/dead-letters", handle: api.ServeLetters},
		{method: "GET", path: "/api/v1/dead-letters/{id}", handle: api.ServeLetter},
		{method: "POST", path: "/api/v1/dead-letters/{id}/replay", handle: api.ServeReplay},
		{method: "POST", path: "/api/v1/inbox/resume", handle: api.ServeResume},
	}
	if n.settings.Admin.Pprof {
		routes = append(routes,
			route{method: "GET", path: "/debug/pprof/", handle: pprof.Index},
			route{method: "GET", path: "/debug/pprof/{profile}", handle: serveProfile})
	}
	return routes
}

// serveMetrics writes what this node counts, and what the process uses.
func (n *Node) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	n.metrics.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
	metrics.WriteFDMetrics(w)
}

func serveProfile(w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("profile"); name {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Handler(name).ServeHTTP(w, r)
	}
}
