package signature

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestCreatedKeyFileLoads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "order-service.key")
	key, err := CreateKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadKeyFile(path)
	if err != nil || len(got) != 1 || got[0].Encode() != key.Encode() {
		t.Errorf("loaded %d keys, %v", len(got), err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	dir, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(dir) != 1 {
		t.Errorf("directory holds %v, %v, want the key file alone", dir, err)
	}
}

func TestCreateKeyFileNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if got, _ := os.ReadFile(path); string(got) != "precious" {
		t.Errorf("file now holds %d other bytes", len(got))
	}
	dangling := filepath.Join(t.TempDir(), "link.key")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeyFile(dangling); !errors.Is(err, fs.ErrExist) {
		t.Errorf("dangling link: got %v, want %v", err, fs.ErrExist)
	}
}

func TestOneOfManyCreatesTheKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.key")
	var made atomic.Int32
	var winner atomic.Value
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			key, err := CreateKeyFile(path)
			if err == nil {
				made.Add(1)
				winner.Store(key.Encode())
			} else if !errors.Is(err, fs.ErrExist) {
				t.Errorf("loser: %v", err)
			}
			if got, err := LoadKeyFile(path); err != nil || len(got) != 1 { // complete for whoever sees it
				t.Errorf("load: %d keys, %v", len(got), err)
			}
		})
	}
	all.Wait()
	got, err := LoadKeyFile(path)
	if err != nil || made.Load() != 1 || got[0].Encode() != winner.Load() {
		t.Errorf("%d created it, %v", made.Load(), err)
	}
}

func TestPlaceKeyFileWithoutLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.key")
	missing := filepath.Join(t.TempDir(), "missing") // linking from it fails, as on a file system without links
	if err := placeKeyFile(missing, path, "content"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := placeKeyFile(missing, path, "other"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
}

func TestLoadKeyFileRefusesOpenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.key")
	if _, err := CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o660, 0o601, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKeyFile(path)
		if _, ok := errors.AsType[*PermissionError](err); !ok || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("%04o: got %v, want advice to chmod 600 it", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeyFile(path); err != nil {
		t.Errorf("0400: %v", err)
	}
}

func TestLoadKeyFile(t *testing.T) {
	a, b := GeneratePrivateKey(), GeneratePrivateKey()
	lines := func(s ...string) string { return strings.Join(s, "\n") }
	for name, row := range map[string]struct {
		content string
		want    int // keys; 0: an error
		says    string
	}{
		"two keys":      {lines("# new", a.Encode(), "", "  "+b.Encode()+" \r"), 2, ""},
		"empty":         {"", 0, "no key"},
		"comments only": {"# a\n#b\n", 0, "no key"},
		"a public key":  {lines("#", a.Public().String()), 0, "line 2"},
		"key twice":     {lines(a.Encode(), a.Encode()), 0, "line 2"},
		"too many":      {lines(a.Encode(), b.Encode(), GeneratePrivateKey().Encode(), GeneratePrivateKey().Encode(), GeneratePrivateKey().Encode()), 0, "at most 4"},
		"cut key":       {a.Encode()[:40], 0, "line 1"},
		"huge":          {strings.Repeat("#\n", maxKeyFileBytes), 0, "larger"},
		"long line":     {strings.Repeat("x", maxKeyFileBytes), 0, "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k.key")
			if err := os.WriteFile(path, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := LoadKeyFile(path)
			if row.want > 0 && (err != nil || len(got) != row.want || got[0].Encode() != a.Encode()) {
				t.Fatalf("got %d keys, %v", len(got), err)
			}
			if row.want == 0 && (err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), path)) {
				t.Errorf("got %v, want an error that says %q and names the file", err, row.says)
			}
			if err != nil && strings.Contains(err.Error(), a.Encode()[10:20]) {
				t.Errorf("error shows the key: %v", err)
			}
		})
	}
}

func TestLoadKeyFileMissing(t *testing.T) {
	if _, err := LoadKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := LoadKeyFile(t.TempDir()); err == nil {
		t.Error("a directory loaded")
	}
}
