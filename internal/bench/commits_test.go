package main

import (
	"testing"
	"time"
)

func TestCommitsAreReadFromMetrics(t *testing.T) {
	got, err := parseCommits("# TYPE hooksidecar_store_sync_seconds histogram\n" +
		"hooksidecar_store_sync_seconds_bucket{le=\"0.1\"} 7\n" +
		"hooksidecar_store_sync_seconds_sum 0.5\nhooksidecar_store_sync_seconds_count 10\n")
	if err != nil || got.count != 10 || got.mean() != 50*time.Millisecond {
		t.Errorf("got %+v %v, want 10 of 50 ms", got, err)
	}
	if _, err := parseCommits("up 1\n"); err == nil {
		t.Error("metrics without commits were taken")
	}
}
