package event_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

var payOne = event.Party{Service: "payment-service", Instance: "pay-1", StoreID: "st_1"}

func testQuestion() event.KnownQuestion {
	return event.KnownQuestion{Protocol: event.Protocol, From: payOne, To: "st_2", Events: []event.Trace{
		event.TraceOf(event.Hash("order-service", "evt_1"), event.Digest{1, 2, 3}), {},
	}}
}

func TestKnownForms(t *testing.T) {
	q := testQuestion()
	want := `{"protocol":1,"from":{"service":"payment-service","instance":"pay-1","storeId":"st_1"},"to":"st_2",` +
		`"events":"dZGz/kZQtO1J/MQfN6oy0gECAwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`
	if got := string(q.Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := event.ParseKnownQuestion(q.Append(nil))
	if err != nil || !reflect.DeepEqual(back, q) {
		t.Errorf("got  %+v, %v\nwant %+v", back, err, q)
	}
	a := event.KnownAnswer{Protocol: event.Protocol, From: payOne, To: "st_2",
		Known: []event.Knowledge{event.Unknown, event.Unknown, event.Open, event.Settled, event.Unknown, event.Conflict}}
	want = `{"protocol":1,"from":{"service":"payment-service","instance":"pay-1","storeId":"st_1"},"to":"st_2","known":[` +
		`{"state":"unknown","count":2},{"state":"open","count":1},{"state":"settled","count":1},{"state":"unknown","count":1},{"state":"conflict","count":1}]}`
	if got := string(a.Append(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	answer, err := event.ParseKnownAnswer(a.Append(nil))
	if err != nil || !reflect.DeepEqual(answer, a) {
		t.Errorf("got  %+v, %v\nwant %+v", answer, err, a)
	}
}

func TestLargestQuestionIsTaken(t *testing.T) {
	q := testQuestion()
	name := strings.Repeat("ü", 128)
	q.From, q.To = event.Party{Service: name, Instance: name, StoreID: name}, name
	q.Events = slices.Repeat(q.Events[:1], event.MaxBatchEvents)
	if got, err := event.ParseKnownQuestion(q.Append(nil)); err != nil || len(got.Events) != event.MaxBatchEvents {
		t.Errorf("question: %d events, %v", len(got.Events), err)
	}
	a := event.KnownAnswer{From: q.From, To: q.To}
	for i := range event.MaxBatchEvents {
		a.Known = append(a.Known, []event.Knowledge{event.Unknown, event.Conflict}[i%2])
	}
	if got, err := event.ParseKnownAnswer(a.Append(nil)); err != nil || !slices.Equal(got.Known, a.Known) {
		t.Errorf("answer: %d states, %v", len(got.Known), err)
	}
	q.Events = append(q.Events, event.Trace{})
	if _, err := event.ParseKnownQuestion(q.Append(nil)); err == nil {
		t.Error("one event too many is taken")
	}
}

func TestKnownThatIsRefused(t *testing.T) {
	q, head := string(testQuestion().Append(nil)), `{"protocol":1,"from":{"service":"s","instance":"i","storeId":"st"},"to":"st_2"`
	for _, text := range []string{
		"", "[]", "{}", head + "}", q + "x", strings.Replace(q, `"protocol":1`, `"protocol":2`, 1), head + `,"events":"AAAA"}`,
		head + `,"events":"!"}`, head + `,"events":[]}`, head + `,"events":"","events":""}`, q[:len(q)-1],
		string(event.NewBatchWriter(nil, event.BatchHeader{From: payOne, To: "payment-service"}).Bytes()),
	} {
		if got, err := event.ParseKnownQuestion([]byte(text)); err == nil {
			t.Errorf("question %q is read as %+v", text, got)
		}
	}
	for _, known := range []string{
		`[{"state":"settled"}]`, `[{"state":"settled","count":0}]`, `[{"state":"maybe","count":1}]`, `[{"state":"open","count":1001}]`,
		`[{"state":"open","count":600},{"state":"settled","count":600}]`, `{}`, `["open"]`, `[{"state":"open","count":1},]`,
	} {
		if got, err := event.ParseKnownAnswer([]byte(head + `,"known":` + known + "}")); err == nil {
			t.Errorf("answer %s is read as %+v", known, got)
		}
	}
}
