package main

import (
	"context"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// brokenNode is a loopback file system on which syncing the write-ahead logs fails once it is armed.
type brokenNode struct {
	*fs.LoopbackNode
	armed *atomic.Bool
}

func (n *brokenNode) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &brokenNode{child.(*fs.LoopbackNode), n.armed}
}

func (n *brokenNode) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	if n.armed.Load() && strings.HasSuffix(n.Path(nil), ".mem") {
		return syscall.EIO
	}
	return f.(fs.FileFsyncer).Fsync(ctx, flags)
}

// unpassed keeps the kernel from using the backing file directly: then no error would ever be injected.
type unpassed struct{ *fs.LoopbackFile }

func (unpassed) PassthroughFd() (int, bool) { return 0, false }

func (n *brokenNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, fl, errno := n.LoopbackNode.Open(ctx, flags)
	return unpass(f), fl, errno
}

func (n *brokenNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	in, f, fl, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return in, unpass(f), fl, errno
}

func unpass(f fs.FileHandle) fs.FileHandle {
	if l, ok := f.(*fs.LoopbackFile); ok {
		return unpassed{l}
	}
	return f
}

// faulty mounts such a file system, or skips the test where that is not permitted.
func faulty(t *testing.T) (mount string, arm func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not run: mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("not run: there is no /dev/fuse here")
	}
	mount, backing := t.TempDir(), t.TempDir()
	root := &fs.LoopbackRoot{Path: backing}
	node := &brokenNode{&fs.LoopbackNode{RootData: root}, &atomic.Bool{}}
	root.RootNode = node
	server, err := fs.Mount(mount, node, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true}})
	if err != nil {
		t.Skipf("not run: FUSE is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			_ = syscall.Unmount(mount, syscall.MNT_DETACH)
		}
	})
	return mount, func() { node.armed.Store(true) }
}
