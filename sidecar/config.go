package sidecar

import (
	"log/slog"
	"net/http"

	"github.com/hooksidecar/hooksidecar/internal/config"
)

// Config is what a node is made from.
type Config struct {
	Settings   config.Config     // as config.Load returns it: checked, and with its defaults
	AcceptLoss string            // id of a damaged store, to go on with what is left of it; "": never
	Version    string            // of the program, for status and metrics
	Log        *slog.Logger      // nil: discard
	Transport  http.RoundTripper // to other sidecars; nil: a guarded one of its own. Tests cut the network here
}
