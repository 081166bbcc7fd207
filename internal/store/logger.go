package store

import (
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog hands Badger's lines to slog. Its Info is our Debug. Calls come until Badger's Close returns.
//
// A flush or compaction that fails is told in the log only, and tried again for ever, while commits wait. So
// those lines close the fence.
//
// Each compaction says when it has filled a table and is about to write it; pass may hold it up there.
type badgerLog struct {
	log   *slog.Logger
	fence *fence
	pass  func(compactor int) // nil: none
}

const tableFilled = "[%d] LOG Compact. Added %d keys. Skipped %d keys. Iteration took: %v"

var fatalLines = []string{"error flushing memtable", "While trying to flush memtable", "Compact FAILED"}

func (l badgerLog) Errorf(f string, args ...any) {
	text := line(f, args)
	l.log.Error("badger", "text", text)
	l.judge(text)
}

func (l badgerLog) Warningf(f string, args ...any) {
	text := line(f, args)
	l.log.Warn("badger", "text", text)
	l.judge(text)
}

func (l badgerLog) judge(text string) {
	for _, fatal := range fatalLines {
		if strings.Contains(text, fatal) {
			l.fence.close(fmt.Errorf("badger: %s", text))
		}
	}
}

func (l badgerLog) Infof(f string, args ...any) { l.log.Debug("badger", "text", line(f, args)) }

// Debugf gets a line for each write, and drops it.
func (l badgerLog) Debugf(f string, args ...any) {
	if f != tableFilled || l.pass == nil || len(args) == 0 {
		return
	}
	compactor, _ := args[0].(int)
	l.pass(compactor)
}

func line(f string, args []any) string { return strings.TrimSpace(fmt.Sprintf(f, args...)) }
