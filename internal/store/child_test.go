package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/store"
)

// The test binary runs itself as a process that can be killed.
const childEnv = "HOOKSIDECAR_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role, ok := os.LookupEnv(childEnv); ok {
		os.Exit(runChild(role, os.Args[len(os.Args)-1]))
	}
	os.Exit(m.Run())
}

// child starts the test binary in a role, on a directory.
func child(ctx context.Context, role, dir string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$", dir)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	return cmd
}

// runChild's roles have arguments after colons.
func runChild(role, dir string) int {
	role, args, _ := strings.Cut(role, ":")
	switch role {
	case "write": // until killed; prints each acknowledged seq
		return childWrite(dir, args)
	case "leave": // n events of size bytes, then gone without closing
		return childLeave(dir, args)
	case "fill": // until refused for want of space
		return childFill(dir, args)
	case "load": // like leave, fast
		return childLoad(dir, args)
	case "reopen": // and go without closing
		return childReopen(dir)
	case "cycle": // open, write, back up, close, over and over; prints like write
		return childCycle(dir)
	case "spread": // until the disk is full
		return childSpread(dir)
	case "accept": // the loss of the store named
		return childAccept(dir, args)
	case "restore": // a backup that lies beside dir
		return childRestore(dir)
	case "fence": // write until fenced
		return childFence(dir)
	}
	return 2
}

func childOpen(dir string) (*store.Store, bool) {
	s, err := store.Open(config(dir))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil, false
	}
	return s, true
}

func childWrite(dir, args string) int {
	size, _ := strconv.Atoi(args)
	s, ok := childOpen(dir)
	if !ok {
		return 65
	}
	var mu sync.Mutex
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for {
				first, err := publish(context.Background(), s, 3, size)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				mu.Lock()
				fmt.Println(first) // one write each: what was printed was acknowledged
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	return 1
}

func childLeave(dir, args string) int {
	var n, size int
	fmt.Sscanf(args, "%d:%d", &n, &size)
	s, ok := childOpen(dir)
	if !ok {
		return 65
	}
	for range n {
		if _, err := publish(context.Background(), s, 1, size); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0 // without Close: as if killed
}

// left makes a store with n events of size bytes that was not closed.
func left(t *testing.T, n, size int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := child(t.Context(), fmt.Sprintf("leave:%d:%d", n, size), dir).CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	return dir
}

// killRounds is how often a writer is killed; HOOKSIDECAR_STORE_KILLS asks for more.
func killRounds() int {
	if n, err := strconv.Atoi(os.Getenv("HOOKSIDECAR_STORE_KILLS")); err == nil {
		return n
	}
	return 3
}

func TestEverythingAcknowledgedSurvivesKill(t *testing.T) {
	for _, size := range []int{100, 20_000} { // without and with many rotations and compactions
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := t.TempDir()
			acked := make(map[uint64]bool)
			for round := range killRounds() {
				after := time.Duration(60+round*97%300) * time.Millisecond
				if killWriter(t, dir, size, after, false, acked); len(acked) == 0 {
					t.Fatal("writer acknowledged nothing")
				}
				if round%2 == 0 { // on the others, what was killed is killed again
					checkStore(t, dir, acked, size)
				}
			}
			checkStore(t, dir, acked, size)
			t.Logf("%d acknowledged operations, all there", len(acked))
		})
	}
}

func TestKillWhileOpeningDoesNoHarm(t *testing.T) {
	dir := t.TempDir()
	acked := make(map[uint64]bool)
	for round := range 4 * killRounds() {
		killWriter(t, dir, 20_000, time.Duration(2+round*7%60)*time.Millisecond, true, acked)
	}
	checkStore(t, dir, acked, 20_000)
	t.Logf("%d acknowledged operations, all there", len(acked))
}

// killWriter runs a writer and kills it some time after its first acknowledgement, or after its start.
func killWriter(t *testing.T, dir string, size int, after time.Duration, atOnce bool, acked map[uint64]bool) {
	t.Helper()
	killChild(t, fmt.Sprintf("write:%d", size), dir, after, atOnce, acked)
}

func killChild(t *testing.T, role, dir string, after time.Duration, atOnce bool, acked map[uint64]bool) {
	t.Helper()
	cmd := child(t.Context(), role, dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) })
	if atOnce {
		kill()
	}
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		kill()
		seq, _ := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if acked[seq] {
			t.Fatalf("seq %d was given twice", seq)
		}
		acked[seq] = true
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("writer: %s", stderr.String())
	}
}

func checkStore(t *testing.T, dir string, acked map[uint64]bool, size int) {
	t.Helper()
	s, err := store.Open(config(dir))
	if err != nil {
		t.Fatalf("after %d acknowledged operations: %v", len(acked), err)
	}
	checkAcked(t, s, acked, size)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func checkAcked(t *testing.T, s *store.Store, acked map[uint64]bool, size int) {
	t.Helper()
	for first := range acked {
		for seq := first; seq < first+3; seq++ {
			v, ok := read(t, s, eventKey(seq))
			if !ok || string(v) != string(payload(seq, size)) {
				t.Fatalf("acknowledged event %d: there %t, %d bytes", seq, ok, len(v))
			}
		}
	}
	n := countEvents(t, s)
	if _, next := s.Bounds(store.OutboxLog); n != int(next-1) || s.Live('e') != int64(n) || n%3 != 0 {
		t.Fatalf("%d events, next seq %d, live %d: operations are not whole", n, next, s.Live('e'))
	}
}
