package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	maxInstances  = 64   // of one service
	maxServices   = 1000 // known at all
	maxPinnedKeys = 16
	maxFormer     = 16
	maxConflicts  = 1000
)

// A RefusedError says why a well formed descriptor was not accepted. It names what a person has to look at.
type RefusedError struct {
	Code   string // key_conflict, store_conflict, version_conflict, protocol, limit
	Detail string
}

func (e *RefusedError) Error() string { return e.Detail }

func refuse(code, format string, args ...any) error {
	return &RefusedError{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// outcome is what became of a descriptor that was not refused.
type outcome int

const (
	accepted  outcome = iota
	unchanged         // nothing new
	stale             // older than what is known
	echo              // our own
)

// origin is where a descriptor came from.
type origin struct {
	via  string // configured URL; "": it announced itself
	from string // for people: URL or address
}

// change is a descriptor that counts, and what follows of it.
type change struct {
	next    *known
	pin     pin
	keys    []signature.PublicKey
	renamed string   // instance that the same store belonged to before; "": none
	taken   []string // sources that it announces and another has
	own     bool     // an instance of our own service: our key file is its pin
}

// take decides about a verified descriptor, and stores it before it counts. One at a time, so that what was decided
// still holds when it is stored. Errors: *RefusedError, those of the store, ctx.Err().
func (d *Directory) take(ctx context.Context, s Signed, desc Descriptor, from origin) (outcome, error) {
	select {
	case d.accepting <- struct{}{}:
		defer func() { <-d.accepting }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	now := time.Now().UTC()
	result, next, err := d.decide(s, desc, from, now)
	if err != nil {
		d.metrics.refused.Inc()
		d.noteConflict(desc, err)
		return 0, err
	}
	if next == nil {
		d.seen(desc, result, now)
		return result, nil
	}
	if err := d.cfg.Store.Commit(ctx, store.Op{Class: store.Work, Apply: next.save}); err != nil {
		return 0, fmt.Errorf("keep descriptor of %s: %w", desc.Service, err)
	}
	d.apply(next)
	d.metrics.accepted.Inc()
	if len(next.taken) > 0 {
		d.cfg.Log.Warn("peer announces sources that are another service's", "peer", desc.Service, "sources", next.taken)
	}
	d.cfg.Log.Info("peer described itself", "peer", desc.Service, "instance", desc.Instance, "url", next.next.url(), "boot", desc.Boot, "version", desc.Version)
	return accepted, nil
}

// decide compares a descriptor with what is known. It changes nothing; a nil change means that there is nothing to keep.
func (d *Directory) decide(s Signed, desc Descriptor, from origin, now time.Time) (outcome, *change, error) {
	own, self := desc.Service == d.cfg.Service, d.cfg.Self()
	d.mu.RLock()
	defer d.mu.RUnlock()
	svc := d.services[desc.Service]
	if err := d.checkKey(s, desc, svc); err != nil {
		return 0, nil, err
	}
	if own && desc.Instance == d.cfg.Instance {
		return decideSelf(self, desc, from)
	}
	if desc.Protocol.Min > event.Protocol || desc.Protocol.Max < event.Protocol {
		return 0, nil, refuse("protocol", "%s/%s speaks protocol %d to %d, this sidecar %d: update one of them",
			desc.Service, desc.Instance, desc.Protocol.Min, desc.Protocol.Max, event.Protocol)
	}
	if desc.StoreID == self.StoreID {
		return 0, nil, refuse("store_conflict", "%s/%s at %s claims the store of this sidecar, %s", desc.Service, desc.Instance, desc.URL, desc.StoreID)
	}
	renamed, err := d.checkStoreID(desc, svc)
	if err != nil {
		return 0, nil, err
	}
	next := &known{signed: s, descriptor: desc, via: from.via, seenAt: now}
	if svc != nil {
		if k := svc.instances[desc.Instance]; k != nil {
			if result, err := compare(k, next); err != nil || result != accepted {
				return result, nil, err
			}
		}
	}
	if err := d.checkRoom(desc, svc, renamed); err != nil {
		return 0, nil, err
	}
	c := &change{next: next, renamed: renamed, own: own}
	if own {
		return accepted, c, nil
	}
	if err := d.setPin(c, svc, from, self); err != nil {
		return 0, nil, err
	}
	return accepted, c, nil
}

// decideSelf is about a descriptor that names this very instance.
func decideSelf(self, desc Descriptor, from origin) (outcome, *change, error) {
	if desc.StoreID != self.StoreID {
		return 0, nil, refuse("store_conflict",
			"another sidecar at %s calls itself %s/%s, with store %s, while this one has store %s: give each an instance name of its own",
			from.from, desc.Service, desc.Instance, desc.StoreID, self.StoreID)
	}
	return echo, nil, nil
}

// checkStoreID refuses a store that belongs to another service, and returns the name that it went by if its service
// has renamed the instance. The caller holds d.mu.
func (d *Directory) checkStoreID(desc Descriptor, svc *service) (renamed string, err error) {
	for _, other := range d.services {
		for name, k := range other.instances {
			if k.descriptor.StoreID != desc.StoreID || other == svc && name == desc.Instance {
				continue
			}
			if other != svc || !k.descriptor.older(desc) {
				return "", refuse("store_conflict", "%s/%s at %s claims store %s, which belongs to %s/%s",
					desc.Service, desc.Instance, desc.URL, desc.StoreID, k.descriptor.Service, name)
			}
			renamed = name
		}
	}
	return renamed, nil
}

// compare decides between what is known of an instance and what it says now, and hands over what stays.
func compare(k, next *known) (outcome, error) {
	was, is := k.descriptor, next.descriptor
	next.former = k.former
	if next.via == "" {
		next.via = k.via // a configured URL goes on counting
	}
	switch {
	case slices.Contains(k.former, is.StoreID):
		return 0, refuse("store_conflict", "%s/%s is claimed with store %s by %s, and was with store %s before: two sidecars under one name, or an old copy",
			is.Service, is.Instance, was.StoreID, k.url(), is.StoreID)
	case was.StoreID != is.StoreID && !is.IssuedAt.After(was.IssuedAt):
		return stale, nil
	case was.StoreID != is.StoreID:
		next.former = append(slices.Clone(k.former), was.StoreID)
		next.former = next.former[max(0, len(next.former)-maxFormer):]
		return accepted, nil
	case is.older(was) && is.IssuedAt.After(was.IssuedAt):
		return 0, refuse("version_conflict", "%s/%s went back to boot %d, version %d, after boot %d, version %d: was its store %s put back from a copy? Use restore, which makes a new store id",
			is.Service, is.Instance, is.Boot, is.Version, was.Boot, was.Version, is.StoreID)
	case is.older(was):
		return stale, nil
	case was.older(is):
		return accepted, nil
	case !was.sameContent(is):
		return 0, refuse("version_conflict", "%s/%s says two things under boot %d, version %d; the first is kept",
			is.Service, is.Instance, is.Boot, is.Version)
	case next.via != k.via:
		return accepted, nil // the same, found elsewhere
	}
	return unchanged, nil
}

// checkRoom bounds what can be made up. The caller holds d.mu.
func (d *Directory) checkRoom(desc Descriptor, svc *service, renamed string) error {
	if svc == nil && len(d.services) >= maxServices {
		return refuse("limit", "service %s is one too many: %d are known", desc.Service, len(d.services))
	}
	if svc != nil && svc.instances[desc.Instance] == nil && renamed == "" && len(svc.instances) >= maxInstances {
		return refuse("limit", "instance %s of %s is one too many: %d are known", desc.Instance, desc.Service, len(svc.instances))
	}
	return nil
}

// apply makes a stored change count.
func (d *Directory) apply(c *change) {
	desc := c.next.descriptor
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.services[desc.Service]
	if s == nil {
		s = &service{instances: make(map[string]*known)}
		d.services[desc.Service] = s
	}
	if !c.own {
		s.pin, s.keys = c.pin, c.keys
	}
	delete(s.instances, c.renamed)
	if via := c.next.via; via != "" {
		d.leaveURL(via)
	}
	s.instances[desc.Instance] = c.next
	d.announceChange()
}

// leaveURL sends what a configured URL led to before back to its own: two instances cannot answer there. The caller
// holds d.mu.
func (d *Directory) leaveURL(via string) {
	for _, s := range d.services {
		for _, k := range s.instances {
			if k.via == via {
				k.via = ""
			}
		}
	}
}

// seen notes that an instance was heard of, without anything new.
func (d *Directory) seen(desc Descriptor, result outcome, now time.Time) {
	if result == stale {
		d.metrics.stale.Inc()
		return
	}
	d.metrics.unchanged.Inc()
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.find(desc); k != nil {
		k.seenAt = now
	}
}

// noteConflict keeps a refusal with the name that it is about, and logs it if it is new. At most one a second is logged:
// whoever reaches the port can make up names.
func (d *Directory) noteConflict(desc Descriptor, err error) {
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return
	}
	now, name := time.Now().UTC(), desc.Service+"/"+desc.Instance
	d.mu.Lock()
	if len(d.conflicts) >= maxConflicts {
		clear(d.conflicts)
	}
	last := d.conflicts[name]
	d.conflicts[name] = conflict{detail: refused.Detail, at: now}
	logged := (last.detail != refused.Detail || now.Sub(last.at) > conflictShownFor) && now.Sub(d.loggedAt) >= time.Second
	if logged {
		d.loggedAt = now
	}
	d.mu.Unlock()
	if logged {
		d.cfg.Log.Error("descriptor refused", "peer", desc.Service, "instance", desc.Instance, "reason", refused.Code, "err", refused)
	}
}

// find returns what is known of the instance, or nil. The caller holds d.mu.
func (d *Directory) find(desc Descriptor) *known {
	if s := d.services[desc.Service]; s != nil {
		return s.instances[desc.Instance]
	}
	return nil
}
