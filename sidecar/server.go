package sidecar

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10

	headerSlack = 4 << 10 // what net/http reads beyond MaxHeaderBytes before it refuses
)

// Connections that each listener takes at once. They are apart, so that peers cannot starve the app.
const (
	maxAppConns   = 256
	maxPeerConns  = 512
	maxAdminConns = 64
)

// A server is one listener of the node with all its addresses.
type server struct {
	name      string // app, peer, admin
	listeners []net.Listener
	http      *http.Server
	crowd     *crowd // nil if the listeners have none
	serving   sync.WaitGroup
}

func newServer(name string, listeners []net.Listener, handler http.Handler, logger *slog.Logger) *server {
	s := &server{name: name, listeners: listeners, http: &http.Server{
		Handler:                      handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes - headerSlack,
		DisableGeneralOptionsHandler: true, // else OPTIONS * would pass by the guard
		ErrorLog:                     log.New(logWriter{logger.With("listener", name)}, "", 0),
	}}
	if l, ok := listeners[0].(*limited); ok {
		s.crowd = l.crowd
		s.http.ConnState = l.crowd.track
	}
	return s
}

// start serves until stop. It returns at once.
func (s *server) start(failed func(error)) {
	for _, l := range s.listeners {
		s.serving.Go(func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed(err)
			}
		})
	}
}

// stop takes no more requests and waits for those under way until ctx ends, then cuts them off.
func (s *server) stop(ctx context.Context) error {
	down := make(chan struct{})
	if s.crowd != nil {
		s.serving.Go(func() { s.crowd.disperse(down) })
	}
	err := s.http.Shutdown(ctx)
	close(down)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.serving.Wait()
	return errors.Join(err, closeAll(s.listeners))
}

// logWriter takes the lines of net/http, which are about clients that misbehave.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	w.log.Debug("connection failed", "err", string(line))
	return len(line), nil
}
