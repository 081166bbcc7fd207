package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files of a store directory.
const (
	lockName      = "LOCK"
	identityName  = "STORE"
	watermarkName = "WATERMARK"
	ballastName   = "BALLAST"
	badgerName    = "badger"
	guardName     = "guard"
	damagedName   = "DAMAGED"
)

// formatVersion is raised when an older program would misread the store.
const formatVersion = 1

// identity is the STORE file. Boot 0 means that the store is being made: nothing was ever acknowledged.
type identity struct {
	StoreID   string    `json:"store_id"`
	Format    int       `json:"format"`
	Boot      uint64    `json:"boot"`
	Service   string    `json:"service"`
	CreatedAt time.Time `json:"created_at"`
}

func newIdentity(service string) identity {
	var id [15]byte
	rand.Read(id[:])
	return identity{
		StoreID:   "st_" + strings.ToLower(base32.StdEncoding.EncodeToString(id[:])),
		Format:    formatVersion,
		Service:   service,
		CreatedAt: time.Now().UTC().Truncate(time.Millisecond),
	}
}

var errBadIdentity = errors.New("STORE cannot be read")

// readIdentity returns fs.ErrNotExist, errBadIdentity or ErrNewerFormat wrapped.
func readIdentity(dir string) (identity, error) {
	var id identity
	b, err := os.ReadFile(filepath.Join(dir, identityName))
	if err != nil {
		return id, fmt.Errorf("read store identity: %w", err)
	}
	body, sum, ok := bytes.Cut(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(append(body[:len(body):len(body)], '\n'), castagnoli)) {
		return id, fmt.Errorf("%w: checksum", errBadIdentity)
	}
	if err := json.Unmarshal(body, &id); err != nil {
		return id, fmt.Errorf("%w: %w", errBadIdentity, err)
	}
	if id.Format > formatVersion {
		return id, fmt.Errorf("%w: format %d, this program knows %d", ErrNewerFormat, id.Format, formatVersion)
	}
	if id.StoreID == "" || id.Format < 1 {
		return id, fmt.Errorf("%w: members are missing", errBadIdentity)
	}
	return id, nil
}

func writeIdentity(dir string, id identity) error {
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	b = fmt.Appendf(b, "%08x\n", crc32.Checksum(b, castagnoli))
	return writeFileSynced(filepath.Join(dir, identityName), b)
}

// writeFileSynced replaces a file so that after a crash it is the old one or the new one.
func writeFileSynced(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", tmp, err), os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
