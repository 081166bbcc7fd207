package inbox

import (
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

// inboxMetrics are the inbox's on the node's set. Labels come from fixed lists.
type inboxMetrics struct {
	verdicts    map[event.Verdict]*metrics.Counter
	failures    map[string]*metrics.Counter // requests that could not be believed, by reason
	forwards    map[class]*metrics.Counter
	letters     map[string]*metrics.Counter // by reason
	seconds     *metrics.PrometheusHistogram
	endToEnd    *metrics.PrometheusHistogram // seconds from the sender's acceptance to the app's
	redelivered *metrics.Counter             // forwards that were marked
	unverified  *metrics.Counter             // events stored of which another instance may have had a copy
	elsewhere   *metrics.Counter             // events settled since another instance has finished them
	asked       *metrics.Counter             // questions that another instance answered
	askedInVain *metrics.Counter             // questions that it did not
	lost        *metrics.Counter             // events of the log that could not be read
}

func newMetrics(set *metrics.Set, in *Inbox) *inboxMetrics {
	m := &inboxMetrics{
		verdicts: map[event.Verdict]*metrics.Counter{}, failures: map[string]*metrics.Counter{},
		forwards: map[class]*metrics.Counter{}, letters: map[string]*metrics.Counter{},
		redelivered: set.GetOrCreateCounter(`hooksidecar_inbox_redeliveries_marked_total`),
		unverified:  set.GetOrCreateCounter(`hooksidecar_inbox_redeliveries_unverified_total`),
		elsewhere:   set.GetOrCreateCounter(`hooksidecar_inbox_settled_elsewhere_total`),
		asked:       set.GetOrCreateCounter(`hooksidecar_inbox_sibling_questions_total{outcome="answered"}`),
		askedInVain: set.GetOrCreateCounter(`hooksidecar_inbox_sibling_questions_total{outcome="failed"}`),
		lost:        set.GetOrCreateCounter(`hooksidecar_inbox_events_lost_total`),
		seconds: set.GetOrCreatePrometheusHistogramExt(`hooksidecar_inbox_forward_seconds`,
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}),
		endToEnd: set.GetOrCreatePrometheusHistogramExt(`hooksidecar_inbox_end_to_end_seconds`,
			[]float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}),
	}
	for _, v := range []event.Verdict{event.Stored, event.Duplicate, event.Unwanted, event.Rejected, event.KeyBusy, event.Busy} {
		m.verdicts[v] = set.GetOrCreateCounter(`hooksidecar_inbox_events_total{verdict="` + string(v) + `"}`)
	}
	for _, reason := range []string{"stale", "missing", "bad_timestamp", "digest", "duplicate_header", "unknown_sender", "no_match"} {
		m.failures[reason] = set.GetOrCreateCounter(`hooksidecar_inbox_signature_failures_total{reason="` + reason + `"}`)
	}
	for c := classDone; c <= classUnreachable; c++ {
		m.forwards[c] = set.GetOrCreateCounter(`hooksidecar_inbox_forwards_total{outcome="` + c.String() + `"}`)
	}
	for _, reason := range []string{reasonRefused, reasonExhausted, reasonNoSub, reasonLost} {
		m.letters[reason] = set.GetOrCreateCounter(`hooksidecar_inbox_dead_letters_total{reason="` + reason + `"}`)
	}
	m.gauges(set, in)
	return m
}

func (m *inboxMetrics) gauges(set *metrics.Set, in *Inbox) {
	gauge := func(name string, value func(Status) float64) {
		set.GetOrCreateGauge(name, func() float64 { return value(in.Status()) })
	}
	gauge(`hooksidecar_inbox_backlog_events`, func(s Status) float64 { return float64(s.Backlog) })
	gauge(`hooksidecar_inbox_backlog_bytes`, func(s Status) float64 { return float64(s.BacklogBytes) })
	gauge(`hooksidecar_inbox_in_flight`, func(s Status) float64 { return float64(s.InFlight) })
	gauge(`hooksidecar_inbox_parked_subscriptions`, func(s Status) float64 { return float64(len(s.Parked)) })
	gauge(`hooksidecar_inbox_oldest_seconds`, func(s Status) float64 {
		if s.OldestAt.IsZero() {
			return 0
		}
		return max(0, time.Since(s.OldestAt).Seconds())
	})
	for _, mode := range []appMode{appUp, appDown, appSick, appSuspect, appPaused} {
		gauge(`hooksidecar_inbox_app_state{state="`+string(mode)+`"}`, func(s Status) float64 {
			if s.AppState == string(mode) {
				return 1
			}
			return 0
		})
	}
}

func (m *inboxMetrics) count(outcomes []event.Outcome) {
	for _, o := range outcomes {
		m.verdicts[o.Verdict].Inc()
	}
}

func (m *inboxMetrics) distrusted(reason string) *metrics.Counter { return m.failures[reason] }

func (m *inboxMetrics) dead(reason string) *metrics.Counter { return m.letters[reason] }

func (m *inboxMetrics) forwarded(a answer) {
	m.forwards[a.class].Inc()
	if a.class != classUnreachable {
		m.seconds.Update(a.took.Seconds())
	}
}
