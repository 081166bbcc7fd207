package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"syscall"

	"github.com/hooksidecar/hooksidecar/internal/config"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// serviceKeys loads the keys of the service, and makes the first one as long as nobody beyond this machine can have seen another.
// Elsewhere a new key would lock this instance out: the others have pinned the one that they saw first.
func serviceKeys(c config.Config, log *slog.Logger) ([]signature.PrivateKey, error) {
	path := c.Keys.Signing
	keys, err := signature.LoadKeyFile(path)
	switch {
	case err == nil:
		return keys, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, badSetting("keys.signing", err.Error())
	case !localMesh(c):
		return nil, badSetting("keys.signing", fmt.Sprintf("there is no key at %s, and other machines may know %s by its key already: "+
			"copy the key file of another instance there; for a new service make one by starting it once without --peer-listen and --peer", path, c.Service))
	}
	key, err := signature.CreateKeyFile(path)
	if errors.Is(err, fs.ErrExist) { // another instance was first
		if keys, err := signature.LoadKeyFile(path); err == nil {
			return keys, nil
		}
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR) {
		return nil, badSetting("keys.signing", err.Error()+"; name a place that this user can write to")
	}
	if err != nil {
		return nil, err
	}
	log.Info("made a key for the service: every instance of it needs this file, and nobody else", "file", path, "fingerprint", key.Public().Fingerprint())
	return []signature.PrivateKey{key}, nil
}

func badSetting(name, message string) error {
	return &config.Error{Problems: []config.Problem{{Where: name, Message: message}}}
}

// localMesh reports whether everything that this node listens on or talks to as a peer is on this machine.
func localMesh(c config.Config) bool {
	addr, err := config.ParseAddress(c.Peer.Listen)
	if err != nil || !addr.Local() || c.Peer.Advertise != "" && !loopbackURL(c.Peer.Advertise) {
		return false
	}
	for _, peer := range c.Peers {
		if !loopbackURL(peer) {
			return false
		}
	}
	return true
}

// meetsLoopback reports whether a peer may be found at a loopback address.
func meetsLoopback(c config.Config, advertised string) bool {
	for _, peer := range append([]string{advertised}, c.Peers...) {
		if loopbackURL(peer) {
			return true
		}
	}
	return false
}

func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	if u.Hostname() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Unmap().IsLoopback()
}
