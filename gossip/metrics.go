package gossip

import "github.com/VictoriaMetrics/metrics"

// meters are what this package counts. Labels are outcomes from fixed lists, never a name that a peer chose.
type meters struct {
	exchanged, failed, rejected                           *metrics.Counter
	accepted, unchanged, stale, refused, invalid, ignored *metrics.Counter
}

func newMeters(set *metrics.Set, known func() int) *meters {
	set.NewGauge("hooksidecar_gossip_peers_known", func() float64 { return float64(known()) })
	exchange := func(outcome string) *metrics.Counter {
		return set.NewCounter(`hooksidecar_gossip_exchanges_total{outcome="` + outcome + `"}`)
	}
	descriptor := func(outcome string) *metrics.Counter {
		return set.NewCounter(`hooksidecar_gossip_descriptors_total{outcome="` + outcome + `"}`)
	}
	return &meters{
		exchanged: exchange("done"), failed: exchange("failed"), rejected: exchange("rejected"),
		accepted: descriptor("accepted"), unchanged: descriptor("unchanged"), stale: descriptor("stale"),
		refused: descriptor("refused"), invalid: descriptor("invalid"), ignored: descriptor("ignored"),
	}
}
