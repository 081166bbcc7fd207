package outbox

import (
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// refusals are the codes that are counted by name; all others are "other".
var refusals = [...]string{
	"backlog_full", "disk_floor", "disk_low", "id_mismatch", "invalid_field", "invalid_json", "missing_field",
	"source_not_allowed", "store_fenced", "store_slow", "too_large", "too_many_events", "unsupported_media_type",
}

// counters are the figures of the outbox as a whole.
type counters struct {
	set        *metrics.Set
	accepted   *metrics.Counter
	duplicates *metrics.Counter
	conflicts  *metrics.Counter
	refusedAs  map[string]*metrics.Counter
	removed    *metrics.Counter
}

func newCounters(o *Outbox) *counters {
	set := o.cfg.Metrics
	c := &counters{
		set:        set,
		accepted:   set.NewCounter(`hooksidecar_outbox_events_accepted_total`),
		duplicates: set.NewCounter(`hooksidecar_outbox_duplicates_total`),
		conflicts:  set.NewCounter(`hooksidecar_outbox_id_conflicts_total`),
		removed:    set.NewCounter(`hooksidecar_outbox_events_removed_total`),
		refusedAs:  make(map[string]*metrics.Counter, len(refusals)+1),
	}
	for _, code := range append(refusals[:], "other") {
		c.refusedAs[code] = set.NewCounter(`hooksidecar_outbox_refused_total{code="` + code + `"}`)
	}
	set.NewGauge(`hooksidecar_outbox_bytes`, func() float64 { return float64(o.bytes.Load()) })
	set.NewGauge(`hooksidecar_outbox_max_bytes`, func() float64 { return float64(o.cfg.MaxBytes) })
	set.NewGauge(`hooksidecar_outbox_next_seq`, func() float64 { return float64(o.tail.end()) })
	return c
}

func (c *counters) refused(code string) *metrics.Counter {
	if counter, ok := c.refusedAs[code]; ok {
		return counter
	}
	return c.refusedAs["other"]
}

// outcomes are what can become of an event in one delivery.
var outcomes = [...]string{"stored", "duplicate", "unwanted", "rejected", "key_busy", "busy", "refused", "no_answer"}

// subscriberCounters are the figures of one subscriber.
type subscriberCounters struct {
	deliveries map[string]*metrics.Counter
	redelivery *metrics.Counter
	replaced   *metrics.Counter
	batchSize  *metrics.PrometheusHistogram
	seconds    *metrics.PrometheusHistogram
}

// newSubscriberCounters never fails: names come from other services, and two of them may read the same as a label.
func newSubscriberCounters(set *metrics.Set, s *subscriber) *subscriberCounters {
	label := `subscriber="` + labelValue(s.service) + `"`
	c := &subscriberCounters{
		deliveries: make(map[string]*metrics.Counter, len(outcomes)),
		redelivery: set.GetOrCreateCounter(`hooksidecar_outbox_redeliveries_total{` + label + `}`),
		replaced:   set.GetOrCreateCounter(`hooksidecar_outbox_inbox_replaced_total{` + label + `}`),
		batchSize:  set.GetOrCreatePrometheusHistogramExt(`hooksidecar_outbox_batch_events{`+label+`}`, metrics.ExponentialBuckets(1, 2, 10)),
		seconds: set.GetOrCreatePrometheusHistogramExt(`hooksidecar_outbox_delivery_seconds{`+label+`}`,
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}),
	}
	for _, o := range outcomes {
		c.deliveries[o] = set.GetOrCreateCounter(`hooksidecar_outbox_deliveries_total{` + label + `,outcome="` + o + `"}`)
	}
	gauge := func(name, more string, f func(SubscriberStatus) float64) {
		set.GetOrCreateGauge(name+`{`+label+more+`}`, func() float64 { return f(s.figures()) })
	}
	gauge(`hooksidecar_outbox_backlog`, "", func(st SubscriberStatus) float64 { return float64(st.Waiting) })
	gauge(`hooksidecar_outbox_replaced_gone_events`, "", func(st SubscriberStatus) float64 { return float64(st.Gone) })
	gauge(`hooksidecar_outbox_set_aside`, "", func(st SubscriberStatus) float64 { return float64(st.SetAside) })
	gauge(`hooksidecar_outbox_oldest_age_seconds`, "", func(st SubscriberStatus) float64 {
		if st.OldestAt.IsZero() {
			return 0
		}
		return max(0, s.o.store.Clock().Now().Sub(st.OldestAt).Seconds())
	})
	gauge(`hooksidecar_outbox_subscriber_accepted_events`, "", func(st SubscriberStatus) float64 { return float64(st.Accepted) })
	for outcome, f := range map[string]func(Settled) uint64{
		"stored": func(c Settled) uint64 { return c.Stored }, "dead": func(c Settled) uint64 { return c.Dead },
		"unsubscribed": func(c Settled) uint64 { return c.Unsubscribed }, "skipped": func(c Settled) uint64 { return c.Skipped },
		"lost": func(c Settled) uint64 { return c.Lost },
	} {
		gauge(`hooksidecar_outbox_settled_events`, `,outcome="`+outcome+`"`, func(st SubscriberStatus) float64 { return float64(f(st.Counts)) })
	}
	return c
}

// labelValue returns s as it may stand in a label: names come from other services.
func labelValue(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, s)
}
