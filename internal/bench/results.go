package main

import "fmt"

// A figure names one measured value; the unit is in the name.
type figure string

const (
	figSync         figure = "append 1 KiB + sync, p50, µs"
	figEcho         figure = "bare net/http echo, c = 64, requests/s"
	figCommitID     figure = "committer, 64 writers, event + id record, events/s"
	figCommitBare   figure = "committer, 64 writers, event alone, events/s"
	figAlone        figure = "one sidecar, no subscriber, c = 64, accepted/s"
	figAloneP50     figure = "one sidecar, no subscriber, c = 64, answer, p50, ms"
	figAloneP99     figure = "one sidecar, no subscriber, c = 64, answer, p99, ms"
	figAloneBatch   figure = "one sidecar, no subscriber, batches of 100, accepted/s"
	figPair         figure = "pair, c = 64, accepted/s"
	figPairP50      figure = "pair, c = 64, answer, p50, ms"
	figPairP99      figure = "pair, c = 64, answer, p99, ms"
	figDelivered    figure = "pair, c = 64, delivered/s"
	figPairCPU      figure = "pair, c = 64, CPU s per 10,000 events"
	figPairCommits  figure = "pair, c = 64, events per commit, publisher"
	figPairSyncTime figure = "pair, c = 64, commit and sync, mean, ms, publisher"
	figInboxCommits figure = "pair, c = 64, events per commit, subscriber"
	figInboxSync    figure = "pair, c = 64, commit and sync, mean, ms, subscriber"
	figPairBatch    figure = "pair, batches of 100, accepted/s"
	figBatchArrived figure = "pair, batches of 100, delivered/s"
	figRateAnswer50 figure = "pair at 1,000/s, answer, p50, ms"
	figRateAnswer99 figure = "pair at 1,000/s, answer, p99, ms"
	figRateP50      figure = "pair at 1,000/s, end to end, p50, ms"
	figRateP99      figure = "pair at 1,000/s, end to end, p99, ms"
	figRateWritten  figure = "pair at 1,000/s, bytes written per payload byte"
	figBurstMemory  figure = "pair after c = 64, own memory, MB"
	figRefill       figure = "backlog, batches of 100 to an absent subscriber, accepted/s"

	ratioAlone      figure = "G1 alone"
	ratioPair       figure = "G1 pair"
	ratioDelivered  figure = "G2"
	ratioBatchPair  figure = "G3 pair"
	ratioBatchAlone figure = "G3 alone"
	ratioP50        figure = "G4 p50"
	ratioP99        figure = "G4 p99"
	ratioWritten    figure = "G5"
	ratioCPU        figure = "G6"
	ratioIdle       figure = "G7 idle"
	ratioMemory     figure = "G7 rate"
	ratioReady      figure = "G8"
	ratioLost       figure = "G12 lost"
	ratioRepeated   figure = "G12 repeated"
	ratioDisorder   figure = "G12 disorder"
)

// absolutes are the figures that are no goals, in the order of the report.
func absolutes() []figure {
	return []figure{
		figSync, figEcho, figCommitID, figCommitBare,
		figAlone, figAloneP50, figAloneP99, figAloneBatch,
		figPair, figPairP50, figPairP99, figDelivered, figPairCPU,
		figPairCommits, figPairSyncTime, figInboxCommits, figInboxSync, figPairBatch, figBatchArrived,
		figRateAnswer50, figRateAnswer99, figRateP50, figRateP99, figRateWritten, figBurstMemory, figRefill,
	}
}

// results collect what the rounds found.
type results struct {
	samples map[figure]sample
	notes   []string // what a reader of the figures must know, such as refused posts
}

func (r *results) add(f figure, v float64) {
	if r.samples == nil {
		r.samples = map[figure]sample{}
	}
	r.samples[f] = append(r.samples[f], v)
}

func (r *results) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}
