package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used since it started.
type usage struct {
	cpu     time.Duration // user and system
	written int64         // bytes that it made the kernel write to a device
}

func (u usage) sub(o usage) usage { return usage{u.cpu - o.cpu, u.written - o.written} }
func (u usage) add(o usage) usage { return usage{u.cpu + o.cpu, u.written + o.written} }

// tick is the unit of CPU times in /proc, the same on every Linux that Go runs on.
const tick = time.Second / 100

func usageOf(pid int) (usage, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the name before it may hold blanks
	fields := strings.Fields(string(rest))
	const user, system = 14 - 3, 15 - 3 // fields are numbered from 1, and two are cut off
	if len(fields) <= system {
		return usage{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return usage{}, err
		}
		ticks += n
	}
	written, err := procNumber(pid, "io", "write_bytes:")
	return usage{cpu: time.Duration(ticks) * tick, written: written}, err
}

// anonymousBytes returns the process's own memory, without mapped files.
func anonymousBytes(pid int) (int64, error) {
	kib, err := procNumber(pid, "status", "RssAnon:")
	return kib << 10, err
}

// procNumber returns the number after name in a /proc file of lines.
func procNumber(pid int, file, name string) (int64, error) {
	path := fmt.Sprintf("/proc/%d/%s", pid, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseInt(strings.Fields(value)[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}

// busyCPU returns the time that all cores together have not been idle since the
// machine started, what the hypervisor took from them included.
func busyCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(line)
	const first, idle, ioWait, steal = 1, 4, 5, 8 // user is the first; guest times after steal are in user already
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for i := first; i <= steal; i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		if i != idle && i != ioWait {
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}

// A strangers meter tells how much of the machine others used meanwhile: above
// a few percent, figures are not worth quoting.
type strangers struct {
	at        time.Time
	busy, own time.Duration
}

func meetStrangers() (strangers, error) {
	busy, err := busyCPU()
	if err != nil {
		return strangers{}, err
	}
	own, err := ownCPU()
	return strangers{at: time.Now(), busy: busy, own: own}, err
}

// share returns what others have used since s, in percent of all cores. All
// children of this process must have ended.
func (s strangers) share(cores int) (float64, error) {
	now, err := meetStrangers()
	if err != nil {
		return 0, err
	}
	theirs := (now.busy - s.busy) - (now.own - s.own)
	return 100 * theirs.Seconds() / now.at.Sub(s.at).Seconds() / float64(cores), nil
}
