package inbox

import (
	"time"

	"github.com/hooksidecar/hooksidecar/internal/backoff"
)

// An appMode is what the forwarder makes of the app.
type appMode string

const (
	appUp      appMode = "up"
	appDown    appMode = "down"    // cannot be reached: nothing goes but probes
	appPaused  appMode = "paused"  // asked for a pause
	appSick    appMode = "sick"    // many different events failed in a row
	appSuspect appMode = "suspect" // many events were refused in a row: a bad deploy?
)

// An appState knows how the app does. In every mode but up events are kept, no attempt is used, and from holdUntil on one
// event at a time goes, each time another one, until one succeeds.
type appState struct {
	mode      appMode
	unready   bool      // the readiness URL says no: nothing goes, not even probes
	heldAt    time.Time // when the present hold began or was last renewed
	holdUntil time.Time
	holds     int // in a row

	successes uint64              // ever
	failed    map[uint64]struct{} // seqs of different events that failed since the last success; at most sickAfter
	refusals  int                 // dead letters at once since the last success
	accepted  bool                // an operator wants refused events to become dead letters
	probe     backoff.Policy
}

func newAppState() appState {
	return appState{mode: appUp, failed: map[uint64]struct{}{}, probe: backoff.Policy{Base: probeBase, Max: probeMax}}
}

// mayStart reports whether one more request may be made.
func (s *appState) mayStart(now time.Time, flying, limit int) bool {
	switch {
	case s.unready:
		return false
	case s.mode == appUp:
		return flying < limit
	}
	return flying == 0 && !now.Before(s.holdUntil)
}

// hold keeps everything back for a while: at least for atLeast, else by backoff. A request that was made before the present
// hold began tells nothing new: it can prolong the hold, but does not count as a further failure in a row.
func (s *appState) hold(mode appMode, startedAt, now time.Time, atLeast time.Duration, r float64) {
	held := s.mode != appUp
	s.mode = mode
	if !held || !startedAt.Before(s.heldAt) {
		s.holds++
		s.heldAt = now
	}
	wait := atLeast
	if wait <= 0 {
		wait = s.probe.Wait(max(s.holds, 1), 0.5+r/2) // never at once: a probe is to find a change
	}
	if until := now.Add(wait); !held || until.After(s.holdUntil) {
		s.holdUntil = until
	}
}

// release ends a hold of that kind that an answer has shown to be over.
func (s *appState) release(modes ...appMode) {
	for _, mode := range modes {
		if s.mode == mode {
			s.mode, s.holds, s.holdUntil = appUp, 0, time.Time{}
		}
	}
}

// succeed notes that the app took an event. A pause that it asked for after the request was made still stands.
func (s *appState) succeed(startedAt time.Time) {
	s.successes++
	clear(s.failed)
	s.refusals = 0
	s.accepted = false
	s.release(appSick, appSuspect)
	if !startedAt.Before(s.heldAt) {
		s.release(appDown, appPaused)
	}
}

// fail notes a failure that may go better later, and reports whether it is held against the app and not the event.
func (s *appState) fail(seq uint64, startedAt, now time.Time, r float64) bool {
	if len(s.failed) < sickAfter {
		s.failed[seq] = struct{}{}
	}
	switch {
	case s.mode == appSuspect:
		s.hold(appSuspect, startedAt, now, 0, r)
		return true
	case len(s.failed) >= sickAfter:
		s.hold(appSick, startedAt, now, 0, r)
		return true
	case !startedAt.Before(s.heldAt):
		s.release(appDown, appPaused) // it answers
	}
	return false
}

// pause notes that the app asked for a pause; zero retryAfter leaves its length to us.
func (s *appState) pause(seq uint64, startedAt, now time.Time, retryAfter time.Duration, r float64) {
	if len(s.failed) < sickAfter {
		s.failed[seq] = struct{}{}
	}
	mode := appPaused
	switch {
	case s.mode == appSuspect:
		mode = appSuspect
	case len(s.failed) >= sickAfter:
		mode = appSick
	}
	s.hold(mode, startedAt, now, min(retryAfter, maxRetryAfter), r)
}

// refuse notes that the app refused an event for good, and reports whether that is held against the app.
func (s *appState) refuse(startedAt, now time.Time, r float64) bool {
	s.refusals++
	if s.refusals >= suspectAfter && !s.accepted {
		s.hold(appSuspect, startedAt, now, 0, r)
		return true
	}
	if !startedAt.Before(s.heldAt) {
		s.release(appDown, appPaused)
	}
	return false
}

// resume forgets what speaks against the app, as an operator asks.
func (s *appState) resume(accept bool) {
	s.mode, s.holds, s.holdUntil, s.unready = appUp, 0, time.Time{}, false
	clear(s.failed)
	s.refusals = 0
	s.accepted = accept
}

// readiness takes what the readiness URL says.
func (s *appState) readiness(ok bool) {
	s.unready = !ok
	if ok {
		s.release(appDown)
	}
}

// shown returns the mode as people see it.
func (s *appState) shown() appMode {
	if s.unready {
		return appDown
	}
	return s.mode
}
