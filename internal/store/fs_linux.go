package store

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsafeFS are file systems whose sync means nothing or is not known to mean what we need.
var unsafeFS = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb",
	unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb2", unix.V9FS_MAGIC: "9p", unix.FUSE_SUPER_MAGIC: "fuse",
	unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_FS_MAGIC: "afs", unix.CODA_SUPER_MAGIC: "coda", unix.NCP_SUPER_MAGIC: "ncp",
	0x786f4256: "vboxsf", 0xbacbacbc: "vmhgfs",
}

// checkFS refuses a directory on a file system that does not keep what was synced.
func checkFS(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("find file system of %s: %w", dir, err)
	}
	if name, bad := unsafeFS[int64(st.Type)&0xffffffff]; bad {
		return fmt.Errorf("%w: %s is on %s", ErrUnsafeFS, dir, name)
	}
	return nil
}

func statFS(dir string) (fsSpace, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fsSpace{}, err
	}
	return fsSpace{
		freeBytes:  int64(st.Bavail) * st.Bsize,
		freeInodes: int64(st.Ffree),
		// Some file systems make inodes as needed and report none.
		knowsInodes: st.Files > 0,
	}, nil
}

// allocate really takes the space: a hole would be no ballast.
func allocate(f *os.File, size int64) error {
	return unix.Fallocate(int(f.Fd()), 0, 0, size)
}

func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
