package deadletter

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

const (
	letterPrefix  = 'x'
	eventPrefix   = 'y'
	recordVersion = 1
)

// A Getter reads single records: a *store.Tx or a *store.Snapshot.
type Getter interface {
	Get(key []byte) (val []byte, ok bool, err error)
}

// Put stores l with a copy of its event, in tx. If the letter is there already it is replaced, but for the time at which it
// was first given up; nil attributes then leave the copy of the event as it is. An empty ID is filled in.
func Put(tx *store.Tx, l Letter, attributes, data []byte) error {
	if l.ID == "" {
		l.ID = ID(l.Side, l.Subscriber, l.Source, l.EventID)
	}
	if l.State == "" {
		l.State = Dead
	}
	if l.FirstAt.IsZero() {
		l.FirstAt = tx.Now()
	}
	if l.LastAt.IsZero() {
		l.LastAt = tx.Now()
	}
	l.Last.Body = clip(l.Last.Body, MaxBodyBytes)
	old, known, err := Get(tx, l.ID)
	if err != nil {
		return err
	}
	if known {
		l.FirstAt = old.FirstAt
	}
	if err := write(tx, l, known); err != nil {
		return err
	}
	if attributes == nil {
		return nil
	}
	return putEvent(tx, l.ID, attributes, data)
}

// Get returns the letter with that id; ok is false if there is none.
func Get(r Getter, id string) (l Letter, ok bool, err error) {
	key, err := recordKey(letterPrefix, id)
	if err != nil {
		return Letter{}, false, nil // not an id of ours: there is no such letter
	}
	val, ok, err := r.Get(key)
	if err != nil || !ok {
		return Letter{}, false, err
	}
	l, err = decode(val)
	if err != nil {
		return Letter{}, false, fmt.Errorf("dead letter %s: %w", id, err)
	}
	return l, true, nil
}

// Event returns the letter's copy of its event; ok is false if there is none, as once the letter is resolved or purged.
// The slices are the caller's.
func Event(r Getter, id string) (attributes, data []byte, ok bool, err error) {
	key, err := recordKey(eventPrefix, id)
	if err != nil {
		return nil, nil, false, nil
	}
	val, ok, err := r.Get(key)
	if err != nil || !ok {
		return nil, nil, false, err
	}
	if len(val) == 0 || val[0] != recordVersion {
		return nil, nil, false, fmt.Errorf("event of dead letter %s: unknown record version", id)
	}
	size, n := binary.Uvarint(val[1:])
	if n <= 0 || size > uint64(len(val)-1-n) {
		return nil, nil, false, fmt.Errorf("event of dead letter %s: damaged record", id)
	}
	rest := append([]byte(nil), val[1+n:]...)
	return rest[:size:size], rest[size:], true, nil
}

// SetState moves the letter to another state. A letter that becomes resolved or purged drops its copy of the event.
// It returns ErrNotFound if there is no such letter.
func SetState(tx *store.Tx, id, state string) error {
	l, ok, err := Get(tx, id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	l.State, l.LastAt = state, tx.Now()
	if err := write(tx, l, true); err != nil {
		return err
	}
	if state != Resolved && state != Purged {
		return nil
	}
	return removeRecord(tx, eventPrefix, id)
}

// removeRecord removes a counted record, if it is there.
func removeRecord(tx *store.Tx, prefix byte, id string) error {
	key, err := recordKey(prefix, id)
	if err != nil {
		return err
	}
	if _, held, err := tx.Get(key); err != nil || !held {
		return err
	}
	tx.Remove(key)
	return nil
}

func write(tx *store.Tx, l Letter, known bool) error {
	key, err := recordKey(letterPrefix, l.ID)
	if err != nil {
		return err
	}
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode dead letter %s: %w", l.ID, err)
	}
	put(tx, key, append([]byte{recordVersion}, text...), known)
	return nil
}

func putEvent(tx *store.Tx, id string, attributes, data []byte) error {
	key, err := recordKey(eventPrefix, id)
	if err != nil {
		return err
	}
	_, known, err := tx.Get(key)
	if err != nil {
		return err
	}
	val := make([]byte, 0, 1+binary.MaxVarintLen64+len(attributes)+len(data))
	val = append(val, recordVersion)
	val = binary.AppendUvarint(val, uint64(len(attributes)))
	val = append(val, attributes...)
	put(tx, key, append(val, data...), known)
	return nil
}

// put writes a counted record, which the store wants to be told apart from overwriting one.
func put(tx *store.Tx, key, val []byte, known bool) {
	if known {
		tx.Put(key, val)
		return
	}
	tx.Insert(key, val)
}

func decode(val []byte) (l Letter, err error) {
	if len(val) == 0 || val[0] != recordVersion {
		return Letter{}, errors.New("unknown record version")
	}
	err = json.Unmarshal(val[1:], &l)
	return l, err
}

// recordKey returns the key of the letter's record under prefix, or an error if id is no letter's id.
func recordKey(prefix byte, id string) ([]byte, error) {
	digits, ok := strings.CutPrefix(id, "dl_")
	if !ok || len(digits) != 32 {
		return nil, fmt.Errorf("not a dead letter's id: %q", id)
	}
	key := make([]byte, 17)
	key[0] = prefix
	if _, err := hex.Decode(key[1:], []byte(digits)); err != nil {
		return nil, fmt.Errorf("not a dead letter's id: %q", id)
	}
	return key, nil
}
