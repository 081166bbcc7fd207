package store_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

const mib = 1 << 20

// smallConfig has limits that fit a small disk: intake ends at 32 MiB free, all writing at 8 MiB.
func smallConfig(dir string) store.Config {
	return store.Config{Dir: dir, Service: "order-service", MinFreeBytes: 32 * mib, BallastBytes: 16 * mib, MemTableBytes: 1 * mib, AllowUnsafeFS: true}
}

// smallDisk mounts a file system of 128 MiB.
func smallDisk(t *testing.T, kind string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if kind == "ext4" {
		return loopDisk(t, "128M")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128m,mode=0700"); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v", err)
	}
	unmountLater(t, dir)
	return dir
}

// loopDisk mounts an ext4 file system of its own.
func loopDisk(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	for _, cmd := range [][]string{{"truncate", "-s", size, image}, {"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no loop mount here: %v: %v %s", cmd, err, out)
		}
	}
	unmountLater(t, dir)
	return dir
}

func unmountLater(t *testing.T, dir string) {
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// childFill publishes and prints each acknowledged seq. With "low" it ends when intake is refused; with "floor"
// it prints when writing stops, waits for room, and goes on.
func childFill(dir, until string) int {
	s, err := store.Open(smallConfig(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 65
	}
	if until == "low" {
		for err == nil {
			err = publishLine(s, store.Intake)
		}
		if !errors.Is(err, store.ErrDiskLow) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("low")
		return childDrain(s)
	}
	// A commit that is under way can hang until there is room, so another goroutine looks.
	floor := make(chan struct{})
	go func() {
		for s.Space().State != "disk_floor" {
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Println("floor")
		close(floor)
	}()
	for seen := false; err == nil && !seen; {
		err = publishLine(s, store.Work)
		select {
		case <-floor:
			seen = true
		case <-time.After(2 * time.Millisecond): // it is others who fill the disk
		}
	}
	<-floor
	for err = publishLine(s, store.Work); errors.Is(err, store.ErrDiskFloor); err = publishLine(s, store.Work) {
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("resumed")
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func publishLine(s *store.Store, class store.Class) error {
	seq, err := publishAs(s, class)
	if err == nil {
		fmt.Println(seq)
	}
	return err
}

// childDrain does what must go on while intake is refused, then waits until there is room.
func childDrain(s *store.Store) int {
	err := s.Commit(context.Background(), store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
		tx.Put([]byte("q"), []byte{1})
		return nil
	}})
	if state := s.Space().State; err != nil || state != "disk_low" {
		fmt.Fprintln(os.Stderr, "work while low:", err, state)
		return 1
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func publishAs(s *store.Store, class store.Class) (seq uint64, err error) {
	err = s.Commit(context.Background(), store.Op{Class: class, Apply: func(tx *store.Tx) error {
		seq = tx.Next(store.OutboxLog)
		tx.Insert(eventKey(seq), payload(seq, 50_000))
		return nil
	}})
	return seq, err
}

// runFill runs childFill, hands each line that is not a seq to said, and returns the acknowledged seqs.
func runFill(t *testing.T, dir, until string, said func(string)) (acked []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := child(ctx, "fill:"+until, dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGQUIT) } // a child that hangs says where
	cmd.WaitDelay = 5 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if seq, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			acked = append(acked, seq)
		} else {
			said(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v\n%.20000s", err, stderr.String())
	}
	return acked
}

func wantAcked(t *testing.T, dir string, acked []uint64) {
	t.Helper()
	s, err := store.Open(smallConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, seq := range acked {
		if v, ok := read(t, s, eventKey(seq)); !ok || string(v) != string(payload(seq, 50_000)) {
			t.Fatalf("acknowledged event %d: %t", seq, ok)
		}
	}
}

func TestDiskFilledByIntakeRefusesBeforeItIsFull(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			disk := smallDisk(t, kind)
			dir := filepath.Join(disk, "store")
			var said []string
			acked := runFill(t, dir, "low", func(s string) { said = append(said, s) })
			if fmt.Sprint(said) != "[low]" || len(acked) < 100 {
				t.Errorf("%d events, then %v", len(acked), said)
			}
			t.Logf("%d events taken, %d MiB free", len(acked), freeBytes(t, disk)/mib)
			wantAcked(t, dir, acked)
		})
	}
}

// fillDisk grows a file until less than free bytes are left.
func fillDisk(t *testing.T, disk string, free int64, step int) string {
	t.Helper()
	path := filepath.Join(disk, "foreign")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, step); freeBytes(t, disk) > free; {
		if _, err := f.Write(chunk); err != nil {
			break
		}
	}
	return path
}

func TestDiskFilledByOthersStopsWritingAndLosesNothing(t *testing.T) {
	for _, kind := range []string{"tmpfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			disk := smallDisk(t, kind)
			dir := filepath.Join(disk, "store")
			foreign := filepath.Join(disk, "foreign")
			full := make(chan struct{})
			var filler sync.WaitGroup
			filler.Go(func() { growFile(t, foreign, full) })
			var said []string
			acked := runFill(t, dir, "floor", func(s string) {
				if said = append(said, s); s == "floor" {
					close(full)
					filler.Wait()
					if err := os.Remove(foreign); err != nil {
						t.Error(err)
					}
				}
			})
			if fmt.Sprint(said) != "[floor resumed]" || len(acked) == 0 {
				t.Errorf("%d events, then %v", len(acked), said)
			}
			wantAcked(t, dir, acked)
		})
	}
}

// growFile fills a disk at some 100 MB/s until less is free than flushes of what was committed may need.
// Compactions wait then.
func growFile(t *testing.T, path string, stop chan struct{}) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for chunk := make([]byte, 200<<10); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
			if freeBytes(t, filepath.Dir(path)) < 6*mib {
				<-stop
				return
			}
			if _, err := f.Write(chunk); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

func TestStartOnFullDiskGivesUpTheBallast(t *testing.T) {
	disk := smallDisk(t, "tmpfs")
	dir := filepath.Join(disk, "store")
	s, err := store.Open(smallConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publishAs(s, store.Intake); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "BALLAST")
	if info, err := os.Stat(ballast); err != nil || info.Size() != 16*mib {
		t.Fatalf("ballast: %v %v", info, err)
	}
	foreign := fillDisk(t, disk, 0, 4096)
	if s, err = store.Open(smallConfig(dir)); err != nil {
		t.Fatalf("open on a full disk: %v", err)
	}
	defer s.Close()
	for _, class := range []store.Class{store.Intake, store.Work} {
		if _, err := publishAs(s, class); !errors.Is(err, store.ErrDiskFloor) {
			t.Errorf("publish as %d on a full disk: %v, want floor", class, err)
		}
	}
	if countEvents(t, s) != 1 || s.Space().State != "disk_floor" {
		t.Errorf("%d events, space %+v", countEvents(t, s), s.Space())
	}
	// Lazy work stays queued, and is written when there is room.
	lazy := make(chan error, 1)
	s.Enqueue(store.Op{Class: store.Lazy, Apply: func(tx *store.Tx) error { tx.Put([]byte("q"), []byte{1}); return nil }, Done: func(err error) { lazy <- err }})
	select {
	case err := <-lazy:
		t.Errorf("lazy work on a full disk ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	if err := <-lazy; err != nil {
		t.Errorf("lazy work: %v", err)
	}
	if _, err := publishAs(s, store.Intake); err != nil {
		t.Errorf("publish with room again: %v", err)
	}
	if _, err := os.Stat(ballast); err != nil {
		t.Errorf("ballast was not taken back: %v", err)
	}
}

func TestStartWithoutRoomIsRefused(t *testing.T) {
	disk := smallDisk(t, "tmpfs")
	fillDisk(t, disk, mib, 4096)
	if _, err := store.Open(smallConfig(filepath.Join(disk, "store"))); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("open: %v, want no space", err)
	}
}

// defaultsConfig is what runs in production, but for the least free space: intake goes on as long as it may.
func defaultsConfig(dir string) store.Config {
	return store.Config{Dir: dir, Service: "order-service", MinFreeBytes: 1, AllowUnsafeFS: true}
}

// childSpread writes until writing stops, keys all over the key space, so that compactions are as large as they
// get; then it watches them end. It prints the last acknowledged seq.
func childSpread(dir string) int {
	s, err := store.Open(defaultsConfig(dir))
	var last uint64
	for err == nil {
		var next uint64
		err = s.Commit(context.Background(), store.Op{Class: store.Work, Apply: func(tx *store.Tx) error {
			for range 60 {
				next = tx.Next(store.OutboxLog)
				tx.Insert(eventKey(next), payload(next, int(1000+next*7919%20_000)))
				id := sha256.Sum256(eventKey(next))
				tx.Insert(append([]byte{'d'}, id[:18]...), make([]byte, 3000))
			}
			return nil
		}})
		if err == nil {
			last = next
		}
	}
	if !errors.Is(err, store.ErrDiskFloor) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(last)
	time.Sleep(5 * time.Second)
	if err := s.Close(); err != nil && !errors.Is(err, store.ErrDiskFloor) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// With the memtables, tables and levels of production, Badger's own work must not reach the end of the disk.
func TestCompactionsFitOnASmallDisk(t *testing.T) {
	if os.Getenv("HOOKSIDECAR_SOAK") == "" {
		t.Skip("HOOKSIDECAR_SOAK is not set")
	}
	for _, size := range []string{"500M", "700M", "900M", "1000M"} {
		t.Run(size, func(t *testing.T) {
			disk := loopDisk(t, size)
			dir := filepath.Join(disk, "store")
			cmd := child(t.Context(), "spread", dir)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("child: %v\n%.3000s", err, stderr.String())
			}
			last, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(defaultsConfig(dir))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n := countEvents(t, s); uint64(n) != last || s.Live('d') != int64(last) {
				t.Errorf("%d events, want %d", n, last)
			}
			t.Logf("%d events of 11 KB, %d MiB used, %d MiB free", last, s.Space().UsedBytes/mib, freeBytes(t, disk)/mib)
		})
	}
}
