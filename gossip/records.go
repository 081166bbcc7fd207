package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// Keys are prefix ‖ service ‖ 0 ‖ instance. The record without an instance is the service's pin.
const (
	prefix        = 'p'
	recordVersion = 1 // first byte of both records, before their JSON
)

// pin says which keys may speak for a service, and which names besides its own it may use.
type pin struct {
	Keys         []string  `json:"keys"`        // whpk_…: those of its known instances
	Fingerprint  string    `json:"fingerprint"` // of the first key ever seen
	FirstSeenAt  time.Time `json:"firstSeenAt"`
	IntroducedBy string    `json:"introducedBy"` // URL or address that it was first seen through
	ChangedAt    time.Time `json:"changedAt,omitzero"`
	Sources      []string  `json:"sources,omitempty"`
}

// peerRecord is a descriptor as it was received.
type peerRecord struct {
	Signed Signed    `json:"signed"`
	Via    string    `json:"via,omitempty"`
	Former []string  `json:"former,omitempty"`
	SeenAt time.Time `json:"seenAt"` // when it was stored
}

func recordKey(service, instance string) []byte {
	return append([]byte{prefix}, service+"\x00"+instance...)
}

func encodeRecord(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append([]byte{recordVersion}, b...), err
}

func decodeRecord(b []byte, v any) error {
	if len(b) == 0 || b[0] != recordVersion {
		return store.ErrNewerFormat
	}
	return json.Unmarshal(b[1:], v)
}

// load reads all records. A damaged one is left out and reported: its peer will describe itself again.
func (d *Directory) load() error {
	pins := make(map[string]pin)
	peers := make(map[string][]*known)
	err := d.cfg.Store.View(func(sn *store.Snapshot) error {
		for r, err := range sn.Scan([]byte{prefix}, []byte{prefix + 1}) {
			if errors.Is(err, store.ErrDamagedRecord) {
				d.cfg.Log.Error("record of a peer is damaged and left out", "key", fmt.Sprintf("%q", r.Key))
				continue
			}
			if err != nil {
				return err
			}
			if err := readRecord(r, pins, peers); err != nil {
				return fmt.Errorf("record %q: %w", r.Key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, known := range peers {
		p, ok := pins[name]
		if !ok && name != d.cfg.Service { // its record was damaged: what was accepted under it still says which keys they were
			p = pinOf(known)
		}
		pins[name] = p
	}
	for name, p := range pins {
		if err := d.restore(name, p, peers[name]); err != nil {
			return err
		}
	}
	return nil
}

func pinOf(peers []*known) (p pin) {
	for _, k := range peers {
		p.Keys = append(p.Keys, k.descriptor.Keys...)
	}
	slices.Sort(p.Keys)
	p.Keys = slices.Compact(p.Keys)
	p.Fingerprint, p.FirstSeenAt, p.IntroducedBy = fingerprints(p.Keys), peers[0].seenAt, "a damaged record"
	return p
}

func readRecord(r store.Record, pins map[string]pin, peers map[string][]*known) error {
	name, instance, _ := strings.Cut(string(r.Key[1:]), "\x00")
	if instance == "" {
		var p pin
		err := decodeRecord(r.Val, &p)
		pins[name] = p
		return err
	}
	var rec peerRecord
	if err := decodeRecord(r.Val, &rec); err != nil {
		return err
	}
	k := &known{signed: rec.Signed, via: rec.Via, former: rec.Former, seenAt: rec.SeenAt}
	// It was verified when it was stored, and limits may have changed since: what is owed must not depend on them.
	if err := json.Unmarshal(rec.Signed.Payload, &k.descriptor); err != nil {
		return err
	}
	peers[name] = append(peers[name], k)
	return nil
}

func (d *Directory) restore(name string, p pin, peers []*known) error {
	s := &service{pin: p, instances: make(map[string]*known)}
	if len(p.Keys) > 0 {
		keys, err := parsePinned(p.Keys)
		if err != nil {
			return fmt.Errorf("pin of %s: %w", name, err)
		}
		s.keys = keys
	}
	for _, k := range peers {
		if k.via != "" && d.linkTo(k.via) == nil {
			k.via = "" // no longer configured
		}
		if name == d.cfg.Service && k.descriptor.Instance == d.cfg.Instance {
			continue // this one, under a name that another instance once had
		}
		s.instances[k.descriptor.Instance] = k
		if l := d.linkTo(k.via); l != nil {
			l.leadsTo(k.descriptor)
		}
	}
	d.services[name] = s
	return nil
}

// save makes the writes of a decision in one operation.
func (c *change) save(tx *store.Tx) error {
	d := c.next.descriptor
	rec, err := encodeRecord(peerRecord{Signed: c.next.signed, Via: c.next.via, Former: c.next.former, SeenAt: c.next.seenAt})
	if err != nil {
		return err
	}
	tx.Put(recordKey(d.Service, d.Instance), rec)
	if c.renamed != "" {
		tx.Delete(recordKey(d.Service, c.renamed))
	}
	if c.own {
		return nil
	}
	rec, err = encodeRecord(c.pin)
	if err != nil {
		return err
	}
	key := recordKey(d.Service, "")
	if before, ok, err := tx.Get(key); err != nil || ok && bytes.Equal(before, rec) {
		return err
	}
	tx.Put(key, rec)
	return nil
}
