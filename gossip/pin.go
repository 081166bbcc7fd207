package gossip

import (
	"slices"
	"strings"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// checkKey asks for a signature by a key that may speak for the service. A service that nobody has pinned may use any.
func (d *Directory) checkKey(s Signed, desc Descriptor, svc *service) error {
	if desc.Service == d.cfg.Service {
		if own := d.ownKeys(); !s.signedByAny(own) {
			return refuse("key_conflict", "%s/%s at %s signs with another key than this instance, whose key is %s: instances of a service share one key file",
				desc.Service, desc.Instance, desc.URL, own[0].Fingerprint())
		}
		return nil
	}
	if svc == nil || len(svc.keys) == 0 || s.signedByAny(svc.keys) {
		return nil
	}
	return refuse("key_conflict", "%s/%s at %s signs with key %s, but %s is pinned, since %s by way of %s",
		desc.Service, desc.Instance, desc.URL, fingerprints(desc.Keys), fingerprints(svc.pin.Keys),
		svc.pin.FirstSeenAt.Format(time.RFC3339), svc.pin.IntroducedBy)
}

// setPin sets the pin of a service after c: the keys that any of its instances names, so that a key goes once the last
// one has let go of it; and those of its sources that nobody had before. The caller holds d.mu.
func (d *Directory) setPin(c *change, svc *service, from origin, self Descriptor) (err error) {
	desc, now := c.next.descriptor, c.next.seenAt
	c.pin = pin{Fingerprint: fingerprints(desc.Keys[:1]), FirstSeenAt: now, IntroducedBy: from.from}
	names := slices.Clone(desc.Keys)
	sources := slices.Clone(desc.Sources)
	if svc != nil {
		c.pin = svc.pin
		for name, k := range svc.instances {
			if name != desc.Instance && name != c.renamed {
				names = append(names, k.descriptor.Keys...)
				sources = append(sources, k.descriptor.Sources...)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxPinnedKeys {
		return refuse("limit", "the instances of %s name %d keys, %d are allowed", desc.Service, len(names), maxPinnedKeys)
	}
	if len(c.pin.Keys) > 0 && !slices.Equal(c.pin.Keys, names) {
		c.pin.ChangedAt = now
	}
	c.pin.Keys = names
	c.pin.Sources, c.taken = d.grant(desc.Service, sources, self)
	c.keys, err = parsePinned(names)
	return err
}

// grant parts the announced sources into those that no other service has, and the others. The service's own name is
// in neither. The caller holds d.mu.
func (d *Directory) grant(name string, sources []string, self Descriptor) (granted, taken []string) {
	slices.Sort(sources)
	for _, source := range slices.Compact(sources) {
		switch {
		case source == name:
		case d.belongsToOther(name, source, self):
			taken = append(taken, source)
		default:
			granted = append(granted, source)
		}
	}
	return granted, taken
}

func (d *Directory) belongsToOther(name, source string, self Descriptor) bool {
	if source == self.Service || slices.Contains(self.Sources, source) {
		return true
	}
	for other, s := range d.services {
		if other != name && (source == other || slices.Contains(s.pin.Sources, source)) {
			return true
		}
	}
	return false
}

func parsePinned(list []string) ([]signature.PublicKey, error) {
	keys := make([]signature.PublicKey, len(list))
	for i, s := range list {
		var err error
		if keys[i], err = signature.ParsePublicKey(s); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// fingerprints returns those of keys, for people.
func fingerprints(keys []string) string {
	all := make([]string, 0, len(keys))
	for _, s := range keys {
		if k, err := signature.ParsePublicKey(s); err == nil {
			all = append(all, k.Fingerprint())
		}
	}
	return strings.Join(all, " or ")
}
