package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
	"github.com/hooksidecar/hooksidecar/internal/signature"
)

// Limits of a descriptor. What is beyond them is refused, whoever signed it.
const (
	MaxDescriptorBytes = 64 << 10 // as it travels, signed
	MaxSubscriptions   = 64
	MaxPatterns        = 64 // of one subscription
	maxSources         = 64
	maxFeatures        = 64
	maxSourceBytes     = 256

	format          = 1
	signaturePrefix = "hooksidecar-descriptor-v1\n"
)

// ErrDescriptor is the reason of every descriptor that Open refuses.
var ErrDescriptor = errors.New("descriptor refused")

// A Range is the versions of the protocol between sidecars that one speaks.
type Range struct {
	Min int `json:"min"`
	Max int `json:"max"`
}

// A Descriptor is what a sidecar says of itself. (Boot, Version) only ever rise within a store.
type Descriptor struct {
	Format        int                  `json:"format"` // 0 is filled in by Seal
	Service       string               `json:"service"`
	Instance      string               `json:"instance"`
	StoreID       string               `json:"storeId"`
	Boot          uint64               `json:"boot"`
	Version       uint64               `json:"version"`
	URL           string               `json:"url"` // of the peer listener: scheme, host and port
	Subscriptions []event.Subscription `json:"subscriptions"`
	Sources       []string             `json:"sources"`  // names that it publishes under, besides the service's own
	Keys          []string             `json:"keys"`     // public keys of the service, whpk_…
	Protocol      Range                `json:"protocol"` // zero is filled in by Seal
	Features      []string             `json:"features"`
	Draining      bool                 `json:"draining"`
	IssuedAt      time.Time            `json:"issuedAt"`
}

// Signed is a descriptor on its way.
type Signed struct {
	Payload    []byte      `json:"payload"`
	Signatures []Signature `json:"signatures"`
}

// A Signature is one key's over the payload of a Signed.
type Signature struct {
	Key       string `json:"key"` // whpk_…
	Signature []byte `json:"signature"`
}

// Seal signs d once with each of keys, after filling in the format and the protocol of this program.
func (d Descriptor) Seal(keys []signature.PrivateKey) Signed {
	d.Format = format
	if d.Protocol == (Range{}) {
		d.Protocol = Range{Min: event.Protocol, Max: event.Protocol}
	}
	d.Subscriptions = orEmpty(d.Subscriptions)
	d.Sources, d.Keys, d.Features = orEmpty(d.Sources), orEmpty(d.Keys), orEmpty(d.Features)
	payload, err := json.Marshal(d)
	if err != nil {
		return Signed{} // only a year beyond 9999 gets here; it then verifies nowhere
	}
	s := Signed{Payload: payload}
	for _, k := range keys[:min(len(keys), signature.MaxSignatures)] {
		s.Signatures = append(s.Signatures, Signature{Key: k.Public().String(), Signature: k.SignRaw(signaturePrefix, payload)})
	}
	return s
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Open returns the descriptor in s if it is well formed, within the limits, and signed by one of the keys in it. Who may
// use that key is not looked at. Errors wrap ErrDescriptor and say what is wrong.
func Open(s Signed) (Descriptor, error) {
	var d Descriptor
	err := d.open(s)
	if err != nil {
		return Descriptor{}, fmt.Errorf("%w: %w", ErrDescriptor, err)
	}
	return d, nil
}

func (d *Descriptor) open(s Signed) error {
	if len(s.Payload) > MaxDescriptorBytes {
		return fmt.Errorf("%d bytes, %d are allowed", len(s.Payload), MaxDescriptorBytes)
	}
	if len(s.Signatures) == 0 || len(s.Signatures) > signature.MaxSignatures {
		return fmt.Errorf("%d signatures, 1 to %d are allowed", len(s.Signatures), signature.MaxSignatures)
	}
	if err := checkJSON(s.Payload); err != nil {
		return err
	}
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(s.Payload, &head); err != nil || head.Format != format {
		return fmt.Errorf("format %d is not known here, only %d", head.Format, format)
	}
	if err := json.Unmarshal(s.Payload, d); err != nil {
		return err
	}
	keys, err := d.check()
	if err != nil {
		return err
	}
	if !s.signedByAny(keys) {
		return errors.New("no signature by a key that is in it")
	}
	return nil
}

// signedByAny reports whether one of the signatures is by one of keys.
func (s Signed) signedByAny(keys []signature.PublicKey) bool {
	for _, sig := range s.Signatures {
		i := slices.IndexFunc(keys, func(k signature.PublicKey) bool { return k.String() == sig.Key })
		if i >= 0 && keys[i].VerifyRaw(signaturePrefix, s.Payload, sig.Signature) {
			return true
		}
	}
	return false
}

// sameContent reports whether two descriptors say the same, whenever they said it.
func (d Descriptor) sameContent(other Descriptor) bool {
	d.IssuedAt, other.IssuedAt = time.Time{}, time.Time{}
	a, errA := json.Marshal(d)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// older reports whether d was made before other, in the same store.
func (d Descriptor) older(other Descriptor) bool {
	if d.Boot != other.Boot {
		return d.Boot < other.Boot
	}
	return d.Version < other.Version
}

func (d Descriptor) instance(url string) event.Instance {
	return event.Instance{
		Service: d.Service, Name: d.Instance, StoreID: d.StoreID, URL: url, Boot: d.Boot,
		Subscriptions: d.Subscriptions, Sources: d.Sources, Keys: d.Keys,
	}
}
