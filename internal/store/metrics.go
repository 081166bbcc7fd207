package store

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// storeMetrics are on the node's set. Gauges read atomics only: a scrape never waits for the store.
type storeMetrics struct {
	commits   *metrics.Counter
	events    *metrics.Counter
	groupSize *metrics.PrometheusHistogram
	sync      *metrics.PrometheusHistogram
	commit    *metrics.PrometheusHistogram
	damaged   *metrics.Counter
}

// newMetrics registers on set. Opening a second store on the same set goes on with the first one's counters.
func newMetrics(set *metrics.Set, g *spaceGuard, f *fence) *storeMetrics {
	times := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 20}
	m := &storeMetrics{
		commits:   set.GetOrCreateCounter("hooksidecar_store_commits_total"),
		events:    set.GetOrCreateCounter("hooksidecar_store_committed_events_total"),
		groupSize: set.GetOrCreatePrometheusHistogramExt("hooksidecar_store_group_events", metrics.ExponentialBuckets(1, 2, 11)),
		sync:      set.GetOrCreatePrometheusHistogramExt("hooksidecar_store_sync_seconds", times),
		commit:    set.GetOrCreatePrometheusHistogramExt("hooksidecar_store_group_seconds", times),
		damaged:   set.GetOrCreateCounter("hooksidecar_store_damaged_records_total"),
	}
	gauge := func(name string, read func() float64) {
		set.UnregisterMetric(name) // its reader belongs to a store that was closed
		set.NewGauge(name, read)
	}
	gauge("hooksidecar_store_used_bytes", func() float64 { return float64(g.used.Load()) })
	gauge("hooksidecar_store_free_bytes", func() float64 { return float64(g.free.Load()) })
	for l := spaceOK; l <= spaceFloor; l++ {
		gauge(`hooksidecar_store_state{state="`+l.String()+`"}`, func() float64 { return truth(spaceLevel(g.level.Load()) == l) })
	}
	gauge(`hooksidecar_store_state{state="fenced"}`, func() float64 { return truth(f.err() != nil) })
	return m
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *storeMetrics) committed(events int, sync, whole time.Duration) {
	m.commits.Inc()
	m.events.Add(events)
	m.groupSize.Update(float64(events))
	m.sync.Update(sync.Seconds())
	m.commit.Update(whole.Seconds())
}
