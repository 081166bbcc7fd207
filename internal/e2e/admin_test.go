package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// get asks an address with a plain GET. Status 0 means that nobody answered, and why.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: slowdown(5 * time.Second)}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// nodeStatus is the part of a status that tests look at.
type nodeStatus struct {
	Service, StoreID string
	Boot             uint64
	Outbox           struct {
		NextSeq uint64
		Events  int64
	}
	Inbox struct {
		AppState string
		Backlog  int64
		NextSeq  uint64
	}
	DeadLetters int64
	Subscribers []struct {
		Service, State        string
		Backlog, Cursor, Dead int64
	}
}

// status asks with the command, as an operator would.
func status(t *testing.T, s *sidecar) nodeStatus {
	t.Helper()
	var st nodeStatus
	s.commandJSON(&st, "status", "-o", "json")
	return st
}

// commandJSON runs a command that must succeed and print JSON.
func (s *sidecar) commandJSON(out any, args ...string) {
	s.t.Helper()
	r := s.command(args...)
	if r.code != 0 {
		s.t.Fatalf("hooksidecar %s: %v", strings.Join(args, " "), r)
	}
	if err := json.Unmarshal([]byte(r.stdout), out); err != nil {
		s.t.Fatalf("hooksidecar %s prints no JSON: %v\n%v", strings.Join(args, " "), err, r)
	}
}

// A letter is the part of a dead letter that tests look at.
type letter struct {
	ID, Side, Subscriber, State, Reason, EventID, Source, Type, Key string
	Attempts                                                        int
	Last                                                            struct {
		Status int
		Header map[string]string
		Body   string
	}
	Event json.RawMessage
}

// deadLetters lists the letters of a sidecar, in any state.
func deadLetters(t *testing.T, s *sidecar, args ...string) []letter {
	t.Helper()
	var page struct{ Letters []letter }
	s.commandJSON(&page, append([]string{"dlq", "list", "-o", "json"}, args...)...)
	return page.Letters
}

// scrape reads the metrics of a sidecar, by name with labels.
func scrape(t *testing.T, s *sidecar) map[string]float64 {
	t.Helper()
	status, body := get(t, "http://"+s.admin+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %s", status, body)
	}
	values := map[string]float64{}
	for line := range strings.Lines(body) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok || !strings.HasPrefix(name, "hooksidecar_") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metric %s: %v", line, err)
		}
		values[name+"}"] = n
	}
	return values
}

// conserved checks that what a publisher accepted for a subscriber is what is settled and what still waits.
func conserved(t *testing.T, s *sidecar, subscriber string) {
	t.Helper()
	label := `subscriber="` + subscriber + `"`
	var accepted, waiting, settled float64
	for name, value := range scrape(t, s) {
		switch {
		case !strings.Contains(name, label):
		case strings.HasPrefix(name, "hooksidecar_outbox_subscriber_accepted_events{"):
			accepted = value
		case strings.HasPrefix(name, "hooksidecar_outbox_backlog{"):
			waiting = value
		case strings.HasPrefix(name, "hooksidecar_outbox_settled_events{"):
			settled += value
		}
	}
	if accepted == 0 || accepted != waiting+settled {
		t.Errorf("%s for %s: accepted %v, settled %v, waiting %v", s.settings.service, subscriber, accepted, settled, waiting)
	}
}

// writeConfig gives a sidecar a configuration file, besides its flags. It is the file that is found without --config.
func writeConfig(t *testing.T, s *sidecar, text string) {
	t.Helper()
	writeFile(t, filepath.Join(s.dir, "hooksidecar.yaml"), text)
}

// writeFile writes a file that only its owner may read.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
