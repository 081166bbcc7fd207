package sidecar

import (
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/gossip"
)

// announcement returns what makes a descriptor of an identity: all of it that others act on, without what differs at every start.
func (n *Node) announcement(url string) func(identity) gossip.Descriptor {
	var keys []string
	for _, k := range n.keys {
		keys = append(keys, k.Public().String())
	}
	return func(id identity) gossip.Descriptor {
		return gossip.Descriptor{
			Service: n.settings.Service, Instance: id.Instance, StoreID: n.store.ID(), URL: url,
			Subscriptions: id.subscriptions(n.settings),
			Sources:       slices.Clone(n.settings.Outbox.Sources),
			Keys:          slices.Clone(keys),
		}
	}
}

// descriptor is what others are told about this node now.
func (n *Node) descriptor(announce func(identity) gossip.Descriptor) gossip.Descriptor {
	d := announce(n.identity)
	d.Boot, d.Version, d.IssuedAt = n.store.Boot(), n.identity.Version, time.Now().UTC()
	return d
}
