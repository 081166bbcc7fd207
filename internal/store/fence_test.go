package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// eioNode is a loopback file system on which syncing files with one suffix fails while a file ARM, whose
// content is the suffix, lies in the backing directory.
type eioNode struct {
	*fs.LoopbackNode
	backing string
}

func (n *eioNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &eioNode{child.(*fs.LoopbackNode), n.backing}
}

func (n *eioNode) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	suffix, err := os.ReadFile(filepath.Join(n.backing, "ARM"))
	if err == nil && strings.HasSuffix(n.Path(nil), string(suffix)) {
		return syscall.EIO
	}
	return f.(fs.FileFsyncer).Fsync(ctx, flags)
}

// The kernel must not talk to the backing file directly, or no error is ever injected.
type plainFile struct{ *fs.LoopbackFile }

func (plainFile) PassthroughFd() (int, bool) { return 0, false }

func (n *eioNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, fl, errno := n.LoopbackNode.Open(ctx, flags)
	return plain(f), fl, errno
}

func (n *eioNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	in, f, fl, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, plain(f), fl, errno
}

func plain(f fs.FileHandle) fs.FileHandle {
	if l, ok := f.(*fs.LoopbackFile); ok {
		return plainFile{l}
	}
	return f
}

// faulty mounts such a file system and returns mount point and backing directory.
func faulty(t *testing.T) (mount, backing string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse here")
	}
	mount, backing = t.TempDir(), t.TempDir()
	root := &fs.LoopbackRoot{Path: backing}
	node := &eioNode{&fs.LoopbackNode{RootData: root}, backing}
	root.RootNode = node
	opts := &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}}
	server, err := fs.Mount(mount, node, opts)
	if err != nil {
		t.Skipf("FUSE is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			_ = syscall.Unmount(mount, syscall.MNT_DETACH)
		}
	})
	return mount, backing
}

// childFence writes until the store is fenced, prints each acknowledged seq, and after the fence asks for
// more, which must all be refused.
func childFence(dir string) int {
	s, ok := childOpen(dir)
	if !ok {
		return 65
	}
	for {
		seq, err := publish(context.Background(), s, 1, 100)
		if err == nil {
			fmt.Println(seq)
			select {
			case <-s.Fenced(): // of the watermark, between two commits
			case <-time.After(5 * time.Millisecond):
				continue
			}
		} else if !errors.Is(err, store.ErrFenced) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		break
	}
	fmt.Println("fenced")
	<-s.Fenced()
	for range 20 {
		if seq, err := publish(context.Background(), s, 1, 100); !errors.Is(err, store.ErrFenced) {
			fmt.Fprintf(os.Stderr, "after the fence: %d %v\n", seq, err)
			return 1
		}
	}
	if err := s.Close(); !errors.Is(err, store.ErrFenced) {
		fmt.Fprintf(os.Stderr, "close: %v\n", err)
		return 1
	}
	return 74
}

func TestFirstFailedSyncFences(t *testing.T) {
	for _, suffix := range []string{".mem", "WATERMARK"} {
		t.Run(suffix, func(t *testing.T) {
			mount, backing := faulty(t)
			dir := filepath.Join(mount, "store")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := child(ctx, "fence", dir)
			var stdout lineCounter
			var stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			stdout.at, stdout.then = 20, func() {
				if err := os.WriteFile(filepath.Join(backing, "ARM"), []byte(suffix), 0o600); err != nil {
					t.Error(err)
				}
			}
			err := cmd.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 74 {
				t.Fatalf("child: %v\n%s", err, &stderr)
			}
			acked, fenced, _ := strings.Cut(stdout.text.String(), "fenced\n")
			if strings.TrimSpace(fenced) != "" {
				t.Errorf("acknowledged after the fence: %s", fenced)
			}
			if err := os.Remove(filepath.Join(backing, "ARM")); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, filepath.Join(backing, "store"))
			for _, line := range strings.Fields(acked) {
				seq, _ := strconv.ParseUint(line, 10, 64)
				if _, ok := read(t, s, eventKey(seq)); !ok {
					t.Errorf("acknowledged event %d is missing", seq)
				}
			}
		})
	}
}

// lineCounter keeps what is written to it and calls then once, at a line.
type lineCounter struct {
	text  strings.Builder
	lines int
	at    int
	then  func()
}

func (c *lineCounter) Write(b []byte) (int, error) {
	before := c.lines
	c.lines += strings.Count(string(b), "\n")
	if before < c.at && c.lines >= c.at {
		c.then()
	}
	return c.text.Write(b)
}

func TestUnsafeFileSystemIsRefused(t *testing.T) {
	mount, _ := faulty(t)
	cfg := config(filepath.Join(mount, "store"))
	cfg.AllowUnsafeFS = false
	if _, err := store.Open(cfg); !errors.Is(err, store.ErrUnsafeFS) {
		t.Errorf("open on FUSE: %v, want unsafe", err)
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		dir, err := os.MkdirTemp("/dev/shm", "hooksidecar")
		if err != nil {
			t.Skip(err)
		}
		defer os.RemoveAll(dir)
		cfg.Dir = dir
		if _, err := store.Open(cfg); !errors.Is(err, store.ErrUnsafeFS) {
			t.Errorf("open on tmpfs: %v, want unsafe", err)
		}
	}
}
