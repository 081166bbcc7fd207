package outbox

import (
	"fmt"
	"io"
	"slices"
	"strconv"
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
	set.RegisterMetricsWriter(o.writeFigures)
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
	return c
}

// A figure is a gauge of every subscriber, read from one look at it.
type figure struct {
	name, more string
	of         func(SubscriberStatus) float64
}

var figures = [...]figure{
	{"hooksidecar_outbox_backlog", "", func(st SubscriberStatus) float64 { return float64(st.Waiting) }},
	{"hooksidecar_outbox_replaced_gone_events", "", func(st SubscriberStatus) float64 { return float64(st.Gone) }},
	{"hooksidecar_outbox_overtaken_keys", "", func(st SubscriberStatus) float64 { return float64(st.Overtaken) }},
	{"hooksidecar_outbox_set_aside", "", func(st SubscriberStatus) float64 { return float64(st.SetAside) }},
	{"hooksidecar_outbox_oldest_age_seconds", "", func(st SubscriberStatus) float64 { return st.oldestAge.Seconds() }},
	{"hooksidecar_outbox_subscriber_accepted_events", "", func(st SubscriberStatus) float64 { return float64(st.Accepted) }},
	{"hooksidecar_outbox_settled_events", `,outcome="stored"`, func(st SubscriberStatus) float64 { return float64(st.Counts.Stored) }},
	{"hooksidecar_outbox_settled_events", `,outcome="dead"`, func(st SubscriberStatus) float64 { return float64(st.Counts.Dead) }},
	{"hooksidecar_outbox_settled_events", `,outcome="unsubscribed"`, func(st SubscriberStatus) float64 { return float64(st.Counts.Unsubscribed) }},
	{"hooksidecar_outbox_settled_events", `,outcome="skipped"`, func(st SubscriberStatus) float64 { return float64(st.Counts.Skipped) }},
	{"hooksidecar_outbox_settled_events", `,outcome="lost"`, func(st SubscriberStatus) float64 { return float64(st.Counts.Lost) }},
}

// writeFigures writes how the subscribers stand, each as of one moment: what was accepted is settled or waits, in every scrape.
func (o *Outbox) writeFigures(w io.Writer) {
	var labels []string
	var all []SubscriberStatus
	for _, s := range o.all() {
		label := labelValue(s.service)
		if slices.Contains(labels, label) {
			continue // a series that is there twice would spoil the whole scrape
		}
		labels, all = append(labels, label), append(all, s.figures())
	}
	for i, f := range figures {
		if i == 0 || figures[i-1].name != f.name {
			metrics.WriteMetadataIfNeeded(w, f.name, "gauge")
		}
		for i, st := range all {
			fmt.Fprintf(w, "%s{subscriber=\"%s\"%s} %s\n", f.name, labels[i], f.more, strconv.FormatFloat(f.of(st), 'f', -1, 64))
		}
	}
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
