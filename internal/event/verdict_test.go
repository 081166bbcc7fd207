package event_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hooksidecar/hooksidecar/internal/event"
)

func testAnswer() event.BatchAnswer {
	return event.BatchAnswer{
		Protocol: event.Protocol, From: event.Party{Service: "payment-service", Instance: "pay-1", StoreID: "st_2"}, To: "st_1",
		Verdicts: []event.Outcome{
			{Verdict: event.Stored}, {Verdict: event.Stored}, {Verdict: event.Duplicate}, {Verdict: event.Stored},
			{Verdict: event.Rejected, Code: "id_conflict", Detail: `other "content"`}, {Verdict: event.KeyBusy}, {Verdict: event.Unwanted}, {Verdict: event.Busy}, {Verdict: event.Busy},
		},
		Applied: 17, OpenKeys: []uint64{0x9f3c, 1<<64 - 1}, Clock: time.Date(2026, 2, 3, 10, 30, 0, 123_000_000, time.UTC),
	}
}

func TestAnswerForm(t *testing.T) {
	got := string(testAnswer().Append(nil))
	want := `{"protocol":1,"from":{"service":"payment-service","instance":"pay-1","storeId":"st_2"},"to":"st_1","verdicts":[` +
		`{"verdict":"stored","count":2},{"verdict":"duplicate","count":1},{"verdict":"stored","count":1},` +
		`{"verdict":"rejected","count":1,"code":"id_conflict","detail":"other \"content\""},{"verdict":"key_busy","count":1},` +
		`{"verdict":"unwanted","count":1},{"verdict":"busy","count":2}],` +
		`"applied":17,"openKeys":["0000000000009f3c","ffffffffffffffff"],"openAll":false,"clock":"2026-02-03T10:30:00.123Z"}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	want := testAnswer()
	got, err := event.ParseBatchAnswer(want.Append(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

// TestLargestAnswerIsTaken: whatever Append makes, the other side believes.
func TestLargestAnswerIsTaken(t *testing.T) {
	a := testAnswer()
	a.Verdicts, a.OpenKeys = nil, make([]uint64, event.MaxOpenKeys+1)
	for i := range event.MaxBatchEvents {
		detail := fmt.Sprintf("%d\xff\n", i) + strings.Repeat(`"é`, 5000)
		a.Verdicts = append(a.Verdicts, event.Outcome{Verdict: event.Rejected, Detail: detail})
	}
	got, err := event.ParseBatchAnswer(a.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Verdicts) != event.MaxBatchEvents || !got.OpenAll || len(got.OpenKeys) != 0 {
		t.Errorf("got %d verdicts, open all %v, %d open keys", len(got.Verdicts), got.OpenAll, len(got.OpenKeys))
	}
	if o := got.Verdicts[999]; o.Code == "" || !strings.HasPrefix(o.Detail, "999\uFFFD ") {
		t.Errorf("got %+v", o)
	}
}

func TestParseBatchAnswerRefuses(t *testing.T) {
	good := string(testAnswer().Append(nil))
	tests := []struct{ name, old, new, pointer string }{
		{"trailing", `Z"}`, `Z"}{}`, ""},
		{"cut off", `"clock"`, ``, ""},
		{"unknown verdict", `"duplicate"`, `"maybe"`, "/verdicts/1/verdict"},
		{"count 0", `"count":2`, `"count":0`, "/verdicts/0/count"},
		{"count huge", `"count":2`, `"count":2000000000`, "/verdicts/0"},
		{"count beyond a number", `"count":2`, `"count":20000000000000000000`, "/verdicts/0/count"},
		{"count missing", `,"count":2`, ``, "/verdicts/0"},
		{"rejected without code", `"code":"id_conflict",`, ``, "/verdicts/3/code"},
		{"verdicts not an array", `"verdicts":[`, `"verdicts":{},"x":[`, "/verdicts"},
		{"verdicts twice", `"applied"`, `"verdicts":[],"applied"`, "/verdicts"},
		{"applied missing", `"applied":17,`, ``, ""},
		{"open key short", `"0000000000009f3c"`, `"9f3c"`, "/openKeys/0"},
		{"open key upper case", `9f3c`, `9F3C`, "/openKeys/0"},
		{"open keys missing", `"openKeys"`, `"x"`, ""},
		{"too many open keys", `"openKeys":[`, `"openKeys":[` + strings.Repeat(`"0000000000000000",`, 1000), "/openKeys"},
		{"openAll null", `"openAll":false`, `"openAll":null`, "/openAll"},
		{"clock without zone", `.123Z`, ``, "/clock"},
		{"too large", `{`, `{` + strings.Repeat(" ", event.MaxAnswerBytes), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("nothing to replace: %s", tt.old)
			}
			_, err := event.ParseBatchAnswer([]byte(strings.Replace(good, tt.old, tt.new, 1)))
			wantError(t, err, "bad_frame", tt.pointer)
		})
	}
	_, err := event.ParseBatchAnswer([]byte(strings.Replace(good, `"protocol":1`, `"protocol":9`, 1)))
	wantError(t, err, "unsupported_protocol", "/protocol")
}
