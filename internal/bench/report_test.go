package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReportJudgesEachGoalByItsMedian(t *testing.T) {
	var r results
	for _, v := range []float64{0.2, 0.41, 0.9} {
		r.add(ratioAlone, v)
	}
	r.add(ratioP50, 8)
	r.add(ratioLost, 1)
	r.note("a remark")
	var out strings.Builder
	writeReport(&out, fullPlan(), r)
	for _, want := range []string{
		"no subscriber, over echo | ≥ 0.35 | ≥ 0.5 | 0.41 [0.20–0.90] | must |",
		"p50, in syncs | ≤ 16 | ≤ 8 | 8.0 | goal |",
		"| lost | ≤ 0 | ≤ 0 | 1 | **below** |",
		"- a remark",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestPlanRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, args := range [][]string{{"-only", "g99"}, {"-rounds", "1000"}, {"more"}} {
		if _, err := parsePlan(args, &strings.Builder{}); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
	p, err := parsePlan([]string{"-quick", "-only", "g1,G8"}, &strings.Builder{})
	if err != nil || !p.wants("g8") || p.wants("g2", "g12") || p.rounds != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestFiguresHaveNamesOfTheirOwn(t *testing.T) {
	all := absolutes()
	for _, r := range rows() {
		all = append(all, r.figure)
	}
	slices.Sort(all)
	if got := len(slices.Compact(slices.Clone(all))); got != len(all) {
		t.Errorf("%d names for %d figures: %q", got, len(all), all)
	}
}
