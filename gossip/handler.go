package gossip

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"

	"github.com/hooksidecar/hooksidecar/internal/problem"
)

// ServeDescriptor answers with our descriptor. A POST brings the caller's, which is taken if the caller is on this
// machine or its service is known; otherwise whoever reaches this port could fill the directory, and it is left aside
// until somebody here configures that peer.
func (d *Directory) ServeDescriptor(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		if err := d.receive(w, r); err != nil {
			p := problem.From(err)
			if p.Logged() {
				d.cfg.Log.Error("descriptor could not be kept", "err", err)
			}
			problem.Write(w, p)
			return
		}
	}
	body, err := json.Marshal(d.cfg.Self().Seal(d.cfg.Keys))
	if err != nil {
		problem.Write(w, problem.From(err))
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // a caller that went away asks again
}

func (d *Directory) receive(w http.ResponseWriter, r *http.Request) error {
	if _, err := problem.CheckMediaType(r, mediaType); err != nil {
		return err
	}
	body, err := problem.ReadBody(w, r, maxSignedBytes)
	if err != nil {
		return err
	}
	signed, desc, err := decode(body)
	if err != nil {
		d.metrics.invalid.Inc()
		return problem.New("invalid_field", err.Error())
	}
	if !fromLoopback(r) && !d.knows(desc.Service) {
		d.metrics.ignored.Inc()
		d.cfg.Log.Debug("descriptor of an unknown service left aside", "peer", desc.Service, "from", r.RemoteAddr)
		return nil
	}
	_, err = d.take(r.Context(), signed, desc, origin{from: r.RemoteAddr})
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return problem.New("sender_not_allowed", refused.Detail).With("reason", refused.Code)
	}
	return err
}

func fromLoopback(r *http.Request) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}
