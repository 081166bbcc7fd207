package store_test

import (
	"bufio"
	"context"
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
	dir := t.TempDir()
	switch kind {
	case "tmpfs":
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128m,mode=0700"); err != nil {
			t.Skipf("tmpfs cannot be mounted here: %v", err)
		}
	case "ext4":
		image := filepath.Join(t.TempDir(), "disk")
		for _, cmd := range [][]string{{"truncate", "-s", "128M", image}, {"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
			if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
				t.Skipf("no loop mount here: %v: %v %s", cmd, err, out)
			}
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// childFill publishes and prints each acknowledged seq; on a refusal it prints why, waits for a line, and goes on.
// At most "floor" refusals end it.
func childFill(dir, until string) int {
	s, err := store.Open(smallConfig(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 65
	}
	class := store.Intake
	if until == "floor" {
		class = store.Work
	}
	for {
		seq, err := publishAs(s, class)
		if err == nil {
			fmt.Println(seq)
			if until == "floor" {
				time.Sleep(2 * time.Millisecond) // it is others who fill the disk
			}
			continue
		}
		switch {
		case errors.Is(err, store.ErrDiskLow):
			fmt.Println("low")
		case errors.Is(err, store.ErrDiskFloor):
			fmt.Println("floor")
		default:
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		break
	}
	if until == "low" {
		return childDrain(s)
	}
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
		if seq, err := publishAs(s, store.Work); err == nil {
			fmt.Println(seq)
			fmt.Println("resumed")
			break
		}
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
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
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	cmd := child(ctx, "fill:"+until, dir)
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
		t.Fatalf("child: %v\n%.2000s", err, stderr.String())
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

// growFile fills a disk at some 100 MB/s until less is free than the store stops at. To the last byte would
// be a gamble: a compaction that is under way then meets a full disk, which no limit of ours can help.
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
