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
type badgerLog struct {
	log   *slog.Logger
	fence *fence
}

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
func (l badgerLog) Debugf(string, ...any)       {} // a line for each write

func line(f string, args []any) string { return strings.TrimSpace(fmt.Sprintf(f, args...)) }
