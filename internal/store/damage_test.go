package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// copyDir makes a copy of a stopped store. Zeros become holes again: a log is mapped at many times its content.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(dst, bytes.TrimRight(b, "\x00"), 0o600), os.Truncate(dst, int64(len(b))))
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// wantDamage opens twice, since Badger must not get away with having cleaned up, and returns the error.
func wantDamage(t *testing.T, dir, code string) *store.DamageError {
	t.Helper()
	var damage *store.DamageError
	for i := range 2 {
		s, err := store.Open(config(dir))
		if err == nil {
			n, live := countEvents(t, s), s.Live('e')
			s.Close()
			t.Fatalf("opening %d of a damaged store succeeded with %d events, live %d", i+1, n, live)
		}
		if !errors.As(err, &damage) {
			t.Fatalf("opening %d: %v, want damage", i+1, err)
		}
		if damage.Code != code {
			t.Errorf("opening %d: code %s, want %s: %v", i+1, damage.Code, code, err)
		}
	}
	t.Log(damage)
	return damage
}

// acceptLoss opens a damaged store for what is left, and once more as usual.
func acceptLoss(t *testing.T, dir string, d *store.DamageError) *store.Store {
	t.Helper()
	cfg := config(dir)
	cfg.AcceptLoss = "st_other"
	if _, err := store.Open(cfg); err == nil {
		t.Fatal("loss was accepted for another store")
	}
	cfg.AcceptLoss = d.StoreID
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatalf("accept loss: %v", err)
	}
	lost, live, n := s.Lost(), s.Live('e'), countEvents(t, s)
	if int64(n) != live {
		t.Errorf("%d events are left, live count %d", n, live)
	}
	seq := mustPublish(t, s, 1, 100)
	if slices.ContainsFunc(lost, func(r store.LostRange) bool { return r.Log == store.OutboxLog && seq <= r.To }) {
		t.Errorf("seq %d was given again, lost are %v", seq, lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if reports, _ := filepath.Glob(filepath.Join(dir, "LOSS-*.json")); len(reports) != 1 {
		t.Errorf("loss reports: %v", reports)
	}
	s = openStore(t, dir)
	if got := s.Lost(); !slices.Equal(got, lost) || s.Live('e') != live+1 {
		t.Errorf("after reopening lost %v live %d, want %v %d", got, s.Live('e'), lost, live+1)
	}
	return s
}

func logFile(t *testing.T, dir string) string {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "badger", "*.mem"))
	if len(logs) == 0 {
		t.Fatal("no log")
	}
	return logs[0]
}

// usedBytes is the size of a file without the zeros at its end.
func usedBytes(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return len(strings.TrimRight(string(b), "\x00"))
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFlippedBitInLogIsNoticed(t *testing.T) {
	const events = 500
	base := left(t, events, 100)
	for _, percent := range []int{1, 10, 50, 99} {
		t.Run(fmt.Sprint(percent), func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, base)
			path := logFile(t, dir)
			flip(t, path, usedBytes(t, path)*percent/100)
			d := wantDamage(t, dir, "store_regressed")
			// The log itself says what it once held.
			if len(d.Lost) != 1 || d.Lost[0].To != events {
				t.Errorf("lost %v, want up to %d", d.Lost, events)
			}
			s := acceptLoss(t, dir, d)
			if got, want := s.Live('e'), int64(d.Lost[0].From); got != want {
				t.Errorf("%d events are left and added, want %d", got, want)
			}
		})
	}
}

// tabled makes a store, not closed, with several tables.
func tabled(t *testing.T) string {
	t.Helper()
	return left(t, 400, 40_000)
}

// tables returns the tables with something in them: one that was being removed when the process ended is empty, and
// no loss.
func tables(t *testing.T, dir string) []string {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "badger", "*.sst"))
	names = slices.DeleteFunc(names, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || info.Size() == 0
	})
	if len(names) < 2 {
		t.Fatalf("only %d tables", len(names))
	}
	return names
}

func TestDamagedTableIsNoticed(t *testing.T) {
	base := tabled(t)
	size := func(path string) int {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Size())
	}
	cases := map[string]func(path string){
		"data":     func(path string) { flip(t, path, size(path)/2) },
		"index":    func(path string) { flip(t, path, size(path)-200) },
		"checksum": func(path string) { flip(t, path, size(path)-6) },
		"footer":   func(path string) { flip(t, path, size(path)-1) },
		"half":     func(path string) { os.Truncate(path, int64(size(path)/2)) },
		"minus 1":  func(path string) { os.Truncate(path, int64(size(path)-1)) },
		"empty":    func(path string) { os.Truncate(path, 0) },
		"removed":  func(path string) { os.Remove(path) },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			if name == "data" && raceEnabled {
				t.Skip("Badger's own way out of a failed opening has a data race")
			}
			t.Parallel()
			dir := copyDir(t, base)
			damage(tables(t, dir)[0])
			d := wantDamage(t, dir, "store_files_damaged")
			s := acceptLoss(t, dir, d)
			if live := s.Live('e'); live >= 401 {
				t.Errorf("%d events are left", live)
			}
		})
	}
}

func TestDamagedManifestIsNoticed(t *testing.T) {
	base := tabled(t)
	manifest := func(dir string) string { return filepath.Join(dir, "badger", "MANIFEST") }
	size := func(dir string) int64 {
		info, err := os.Stat(manifest(dir))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	cases := map[string]func(dir string){
		"minus 1":              func(dir string) { os.Truncate(manifest(dir), size(dir)-1) },
		"minus 8":              func(dir string) { os.Truncate(manifest(dir), size(dir)-8) },
		"half":                 func(dir string) { os.Truncate(manifest(dir), size(dir)/2) },
		"empty":                func(dir string) { os.Truncate(manifest(dir), 0) },
		"removed":              func(dir string) { os.Remove(manifest(dir)) },
		"flipped":              func(dir string) { flip(t, manifest(dir), 20) },
		"flipped near the end": func(dir string) { flip(t, manifest(dir), int(size(dir))-2) },
	}
	for name, damage := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, base)
			damage(dir)
			_, err := store.Open(config(dir))
			d, ok := errors.AsType[*store.DamageError](err)
			if !ok {
				t.Fatalf("open: %v, want damage", err)
			}
			wantDamage(t, dir, d.Code)
			// The tables are all there, so nothing is really lost.
			if s := acceptLoss(t, dir, d); s.Live('e') != 401 {
				t.Errorf("%d events are left and added, want 401", s.Live('e'))
			}
		})
	}
}

func TestMissingFilesAreNoticed(t *testing.T) {
	base := tabled(t)
	cases := []struct{ name, remove, code string }{
		{"STORE", "STORE", "store_unidentified"},
		{"WATERMARK", "WATERMARK", "watermark_damaged"},
		{"database", "badger", "store_files_damaged"},
		{"all logs", "badger/*.mem", "store_regressed"},
		{"all tables", "badger/*.sst", "store_files_damaged"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, base)
			found, _ := filepath.Glob(filepath.Join(dir, c.remove))
			for _, f := range found {
				if err := os.RemoveAll(f); err != nil {
					t.Fatal(err)
				}
			}
			d := wantDamage(t, dir, c.code)
			if d.Acceptable {
				acceptLoss(t, dir, d)
			}
		})
	}
	for _, harmless := range []string{"*.vlog", "DISCARD", "KEYREGISTRY"} {
		t.Run(harmless, func(t *testing.T) {
			t.Parallel()
			dir := copyDir(t, base)
			found, _ := filepath.Glob(filepath.Join(dir, "badger", harmless))
			if len(found) == 0 {
				t.Fatal("nothing to remove")
			}
			for _, f := range found {
				os.Remove(f)
			}
			if s := openStore(t, dir); countEvents(t, s) != 400 {
				t.Error("events are missing")
			}
		})
	}
}
