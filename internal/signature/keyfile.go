package signature

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MaxKeys is how many private keys one service may have at once.
const MaxKeys = 4

const maxKeyFileBytes = 16 << 10

// A PermissionError refuses a key file that others than its owner may touch.
type PermissionError struct {
	Path string
	Mode fs.FileMode
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("key file %s has mode %04o, others than its owner may use it: chmod 600 %s", e.Path, e.Mode.Perm(), e.Path)
}

// LoadKeyFile reads the private keys of a service, one a line, the current one first. Empty lines and lines that begin
// with # are skipped. It refuses files that group or others may read or write (*PermissionError), more than MaxKeys
// keys, a key twice, and files without a key. Errors name the file and the line, never what is in it.
func LoadKeyFile(path string) ([]PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &PermissionError{Path: path, Mode: info.Mode()}
	}
	content, err := io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	if len(content) > maxKeyFileBytes {
		return nil, fmt.Errorf("key file %s is larger than %d bytes", path, maxKeyFileBytes)
	}
	keys, err := parseKeyFile(content)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return keys, nil
}

func parseKeyFile(content []byte) ([]PrivateKey, error) {
	var keys []PrivateKey
	seen := make(map[PublicKey]bool)
	lines := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := ParsePrivateKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if seen[key.Public()] {
			return nil, fmt.Errorf("line %d: the same key again", n)
		}
		seen[key.Public()] = true
		keys = append(keys, key)
	}
	switch {
	case lines.Err() != nil:
		return nil, lines.Err()
	case len(keys) == 0:
		return nil, fmt.Errorf("%w: no key in it", ErrBadKey)
	case len(keys) > MaxKeys:
		return nil, fmt.Errorf("%d keys in it, at most %d may live at once", len(keys), MaxKeys)
	}
	return keys, nil
}

// CreateKeyFile makes a new private key and keeps it in a new file of mode 0600, with missing directories of mode
// 0700. When it returns, the file is on disk and complete. It never overwrites: if there is a file already the error
// wraps fs.ErrExist, and a second process that lost the race can load what the first has made.
func CreateKeyFile(path string) (PrivateKey, error) {
	key := GeneratePrivateKey()
	if err := createKeyFile(path, key); err != nil {
		return PrivateKey{}, fmt.Errorf("create key file: %w", err)
	}
	return key, nil
}

func createKeyFile(path string, key PrivateKey) error {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	dir := filepath.Dir(path)
	_, statErr := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".new-key-*") // mode 0600, a name of its own
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	content := fmt.Sprintf("# hooksidecar signing key: keep it secret, share it only with the instances of this service.\n"+
		"# public key:  %s\n# fingerprint: %s\n%s\n", key.Public(), key.Public().Fingerprint(), key.Encode())
	if err := writeKeyFile(temp, content); err != nil {
		return err
	}
	if err := placeKeyFile(temp.Name(), path, content); err != nil {
		return err
	}
	if statErr != nil { // the directory is new as well
		return errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
	}
	return syncDir(dir)
}

// placeKeyFile gives the finished file its name. A link, unlike a rename, never replaces; where the file system has no
// links, creating exclusively does not either, at the price that a crash can leave a part, which then does not parse.
func placeKeyFile(temp, path, content string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return writeKeyFile(f, content)
}

// writeKeyFile writes, syncs and closes f.
func writeKeyFile(f *os.File, content string) error {
	_, err := f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
