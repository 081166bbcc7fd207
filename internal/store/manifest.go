package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"google.golang.org/protobuf/proto"
)

// Badger's manifest is a magic number of 8 bytes, then change sets, each after its length and CRC32C. Badger
// refuses one whose last change set was torn by a power cut in a way that kept the file's length, so that
// case is put right here before Badger opens it.
const (
	manifestName   = badger.ManifestFilename
	manifestMagic  = "Bdgr"
	manifestFormat = 8
	externalMagic  = formatVersion // a store of another format is refused by Badger, too
	changeHeader   = 8
)

// manifest is the set of tables that make up the database.
type manifest struct {
	levels  map[uint64]uint32 // table id -> level
	removed map[uint64]bool   // tables that were named once
	end     int64             // where the last whole change set ends
	size    int64
}

var errBadManifest = errors.New("MANIFEST is damaged")

func readManifest(dir string) (manifest, error) {
	m := manifest{levels: make(map[uint64]uint32), removed: make(map[uint64]bool)}
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return m, err
	}
	m.size = int64(len(b))
	if len(b) < 8 || string(b[:4]) != manifestMagic || binary.BigEndian.Uint16(b[6:]) != manifestFormat {
		return m, fmt.Errorf("%w: magic number", errBadManifest)
	}
	if got := binary.BigEndian.Uint16(b[4:]); got != externalMagic {
		return m, fmt.Errorf("%w: format %d", errBadManifest, got)
	}
	at := 8
	for {
		m.end = int64(at)
		if len(b)-at < changeHeader {
			return m, nil
		}
		n := int(binary.BigEndian.Uint32(b[at:]))
		sum := binary.BigEndian.Uint32(b[at+4:])
		if n > len(b)-at-changeHeader {
			return m, nil
		}
		body := b[at+changeHeader:][:n]
		at += changeHeader + n
		if crc32.Checksum(body, castagnoli) != sum {
			if at == len(b) {
				return m, nil // the last append was torn
			}
			return m, fmt.Errorf("%w: checksum at %d", errBadManifest, m.end)
		}
		if err := m.apply(body); err != nil {
			return m, err
		}
	}
}

func (m *manifest) apply(body []byte) error {
	var set pb.ManifestChangeSet
	if err := proto.Unmarshal(body, &set); err != nil {
		return fmt.Errorf("%w: %w", errBadManifest, err)
	}
	for _, c := range set.Changes {
		switch c.Op {
		case pb.ManifestChange_CREATE:
			m.levels[c.Id] = c.Level
			delete(m.removed, c.Id)
		case pb.ManifestChange_DELETE:
			delete(m.levels, c.Id)
			m.removed[c.Id] = true
		default:
			return fmt.Errorf("%w: unknown change", errBadManifest)
		}
	}
	return nil
}

// cut takes a torn append off the end of the file.
func (m *manifest) cut(dir string) error {
	if m.end == m.size {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, manifestName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(m.end), f.Sync(), f.Close())
}

// write replaces the manifest by one that names exactly the tables of m.
func (m *manifest) write(dir string) error {
	var set pb.ManifestChangeSet
	ids := make([]uint64, 0, len(m.levels))
	for id := range m.levels {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		set.Changes = append(set.Changes, &pb.ManifestChange{Id: id, Op: pb.ManifestChange_CREATE, Level: m.levels[id]})
	}
	body, err := proto.Marshal(&set)
	if err != nil {
		return err
	}
	b := append([]byte(manifestMagic), 0, externalMagic, 0, manifestFormat)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	return writeFileSynced(filepath.Join(dir, manifestName), append(b, body...))
}
