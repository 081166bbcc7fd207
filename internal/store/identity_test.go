package store_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// editIdentity changes STORE and makes its checksum right again.
func editIdentity(t *testing.T, dir, from, to string) {
	t.Helper()
	path := filepath.Join(dir, "STORE")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := strings.Cut(string(b), "\n")
	changed := strings.Replace(body, from, to, 1) + "\n"
	if changed == body+"\n" {
		t.Fatalf("%q is not in %s", from, body)
	}
	changed += fmt.Sprintf("%08x\n", crc32.Checksum([]byte(changed), crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

func closed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for range 2 { // boot 2
		s := openStore(t, dir)
		mustPublish(t, s, 5, 50)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestForeignOrDamagedIdentityIsRefused(t *testing.T) {
	base := closed(t)
	cases := []struct {
		name, code string
		change     func(dir string)
	}{
		{"empty", "store_header_damaged", func(dir string) { os.Truncate(filepath.Join(dir, "STORE"), 0) }},
		{"cut", "store_header_damaged", func(dir string) { os.Truncate(filepath.Join(dir, "STORE"), 30) }},
		{"flipped", "store_header_damaged", func(dir string) { flip(t, filepath.Join(dir, "STORE"), 20) }},
		{"another service", "wrong_service", func(dir string) { editIdentity(t, dir, "order-service", "payment-service") }},
		{"older boot", "rollback_suspected", func(dir string) { editIdentity(t, dir, `"boot":2`, `"boot":1`) }},
		{"another store", "watermark_damaged", func(dir string) { editIdentity(t, dir, `"st_`, `"st_x`) }},
		{"both slots torn", "watermark_damaged", func(dir string) {
			flip(t, filepath.Join(dir, "WATERMARK"), 9)
			flip(t, filepath.Join(dir, "WATERMARK"), 512+9)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := copyDir(t, base)
			c.change(dir)
			if d := wantDamage(t, dir, c.code); d.Acceptable {
				acceptLoss(t, dir, d)
			}
		})
	}
	t.Run("newer format", func(t *testing.T) {
		dir := copyDir(t, base)
		editIdentity(t, dir, `"format":1`, `"format":2`)
		if _, err := store.Open(config(dir)); !errors.Is(err, store.ErrNewerFormat) {
			t.Errorf("open: %v, want newer format", err)
		}
	})
	t.Run("leftover of a crash", func(t *testing.T) {
		dir := copyDir(t, base)
		if err := os.WriteFile(filepath.Join(dir, "STORE.tmp"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s := openStore(t, dir); s.Boot() != 3 {
			t.Errorf("boot %d, want 3", s.Boot())
		}
	})
}

func TestOneTornWatermarkSlotIsSurvived(t *testing.T) {
	base := left(t, 20, 100)
	for _, at := range []int{9, 512 + 9} {
		dir := copyDir(t, base)
		flip(t, filepath.Join(dir, "WATERMARK"), at)
		openStore(t, dir)
	}
}

func TestOlderCopyOfTheDatabaseIsNoticed(t *testing.T) {
	dir := closed(t)
	older := copyDir(t, dir)
	s := openStore(t, dir)
	mustPublish(t, s, 7, 50)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "badger")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "badger"), os.DirFS(filepath.Join(older, "badger"))); err != nil {
		t.Fatal(err)
	}
	d := wantDamage(t, dir, "store_regressed")
	acceptLoss(t, dir, d)
}

func TestFirstStartThatWasCutOffIsMadeAgain(t *testing.T) {
	base := closed(t)
	editIdentity(t, base, `"boot":2`, `"boot":0`)
	s := openStore(t, base)
	if _, next := s.Bounds(store.OutboxLog); s.Boot() != 1 || next != 1 {
		t.Errorf("boot %d next %d, want 1 1", s.Boot(), next)
	}
}

func TestFilesAreForTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "store")
	openStore(t, dir)
	for _, name := range []string{".", "STORE", "WATERMARK", "LOCK", "badger"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", name, info.Mode())
		}
	}
}

// Logs that were emptied just before they were unlinked, or made and not yet sized, and a torn append to the
// manifest: each would keep Badger from opening though nothing is missing.
func TestWhatACrashLeavesIsPutRight(t *testing.T) {
	dir := left(t, 20, 100)
	for _, name := range []string{"00099.mem", "000099.vlog"} {
		if err := os.WriteFile(filepath.Join(dir, "badger", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "badger", "MANIFEST"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if s := openStore(t, dir); countEvents(t, s) != 20 {
		t.Error("events are missing")
	}
}
