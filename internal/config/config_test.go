package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hooksidecar.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// problems returns what Load says, with the name of the file shortened to F.
func problems(t *testing.T, src Source) []string {
	t.Helper()
	_, err := Load(src)
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %T, want *Error", err)
	}
	var out []string
	for _, p := range e.Problems {
		text := p.String()
		if src.File != "" {
			text = strings.ReplaceAll(text, src.File, "F")
		}
		out = append(out, text)
	}
	return out
}

func TestSettingsAreOneTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		for _, name := range []string{s.Name, "--" + s.Flag, s.Env()} {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		if s.Help == "" || s.Category == "" {
			t.Errorf("%s has no help or category", s.Name)
		}
		if s.Flag == "" {
			t.Errorf("%s has no flag", s.Name)
		}
	}
	Defaults() // panics if a default cannot be parsed
}

func TestPrecedence(t *testing.T) {
	file := write(t, "service: from-file\ninstance: from-file\nlog:\n  level: warn\n  format: json\napp:\n  timeout: 3s\n")
	env := []string{"HOOKSIDECAR_INSTANCE=from-env", "HOOKSIDECAR_LOG_LEVEL=debug", "HOOKSIDECAR_LOG_FORMAT=", "HOOKSIDECAR_APP_TIMEOUT=4s"}
	loaded, err := Load(Source{File: file, Environ: env, Flags: map[string][]string{"app.timeout": {"5s"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := loaded.Config
	got := []any{c.Service, c.Instance, c.Log.Level, c.Log.Format, c.App.Timeout, c.App.Concurrency}
	want := []any{"from-file", "from-env", "debug", "json", 5 * time.Second, 32}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: flag > env > file > default, and empty env is unset", got, want)
	}
}

func TestWhatFollowsFromOtherSettings(t *testing.T) {
	loaded, err := Load(Source{Flags: map[string][]string{"service": {"order"}, "port_base": {"7000"}, "peer.listen": {"127.0.0.1:1234"},
		"app.url": {"http://localhost:8080/"}, "app.subscriptions": {"order.*", "!order.test"}, "retry.initial": {"2s"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := loaded.Config
	got := []string{c.DataDir, c.Keys.Signing, c.App.Listen, c.Peer.Listen, c.Admin.Listen, c.App.URL}
	want := []string{"data/order", "keys/order.key", "localhost:7000", "127.0.0.1:1234", "localhost:7002", "http://localhost:8080"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	wantSubs := []Subscription{{Types: []string{"order.*", "!order.test"}, Path: "/events", From: "latest",
		Retry: Retry{Initial: 2 * time.Second, MaxInterval: 10 * time.Minute, MaxAttempts: 16}}}
	if !reflect.DeepEqual(c.App.Subscriptions, wantSubs) {
		t.Errorf("got %+v, want %+v", c.App.Subscriptions, wantSubs)
	}
}

func TestSubscriptionsOfFile(t *testing.T) {
	file := write(t, `
service: payment
peers: [http://localhost:9902]
app:
  url: http://localhost:8080/hooks
  subscriptions:
    - types: [order.created, "order.paid@2"]
      path: /orders
      from: 2026-02-03T10:30:00Z
      retry: {initial: 5s, max_attempts: 3}
    - types:
        - "**"
retry:
  max_interval: 1d
store:
  min_free_bytes: 10 MiB
  ballast_bytes: 4096
`)
	loaded, err := Load(Source{File: file})
	if err != nil {
		t.Fatal(err)
	}
	want := []Subscription{
		{Types: []string{"order.created", "order.paid@2"}, Path: "/orders", From: "2026-02-03T10:30:00Z", Retry: Retry{5 * time.Second, 24 * time.Hour, 3}},
		{Types: []string{"**"}, From: "latest", Retry: Retry{time.Second, 24 * time.Hour, 16}},
	}
	if got := loaded.Config.App.Subscriptions; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got, want := loaded.Config.Store, (Store{MinFreeBytes: 10 << 20, BallastBytes: 4096}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFileIsStrict(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"unknown key", "service: a\nservise: b", `F:2: there is no setting "servise"; is "service" meant?`},
		{"wrong case", "Service: a", `F:1: there is no setting "Service"; is "service" meant?`},
		{"unknown in section", "service: a\napp:\n  time_out: 1s", `F:3: there is no setting "app.time_out"; is "app.timeout" meant?`},
		{"flag name", "service: a\ndata-dir: x", `F:2: there is no setting "data-dir"; is "data_dir" meant?`},
		{"flag of another name", "service: a\nsubscribe: [x.y]", `F:2: there is no setting "subscribe"; --subscribe is "app.subscriptions" in the file`},
		{"unknown in subscription", "service: a\napp:\n  url: http://x:1\n  subscriptions:\n  - type: [a.b]", `F:5: there is no setting "app.subscriptions[0].type"; is "app.subscriptions[0].types" meant?`},
		{"twice", "service: a\nlog: {level: info}\nservice: b", `F:3: service is set twice, first in line 1`},
		{"two documents", "service: a\n---\nservice: b", `F:2: a second document: one file holds one configuration`},
		{"alias", "service: &x a\ninstance: *x", `F:1: anchors are not supported: write the value out where it is needed`},
		{"merge key", "service: a\nlog:\n  <<: {level: info}", `F:3: aliases and merge keys are not supported: write the value out`},
		{"tag", "service: !!python/object a", `F:1: tags (!!python/object) are not supported`},
		{"number for text", "service: 123", `F:1: service is text: write service: "123"`},
		{"list for text", "service: [a]", `F:1: service takes one value`},
		{"text for list", "service: a\npeers: http://x:1", `F:2: peers is a list: write [a, b], or "- a" lines`},
		{"text for section", "service: a\napp: http://x:1", `F:2: app is a section: write "key: value" lines below it`},
		{"empty", `service: ""`, `F:1: service has no value: write one or remove the line`},
		{"no value", "service: a\ninstance:", `F:2: instance has no value: write one or remove the line`},
		{"yes for true", "service: a\nadmin: {pprof: yes}", `F:2: admin.pprof: "yes" is neither true nor false`},
		{"octal", "service: a\napp: {concurrency: 010}", `F:2: app.concurrency: "010" is not a whole number`},
		{"duration without unit", "service: a\napp: {timeout: 10}", `F:2: app.timeout: "10" is not a duration`},
		{"ambiguous size", "service: a\nstore: {ballast_bytes: 10MB}", `F:2: store.ballast_bytes: "10MB" is not a size`},
		{"list for file", "- service", `F:1: the file is a section`},
		{"syntax", "service: a\n\tlog: b", `F:2: not YAML: `},
		{"not UTF-8", "service: a\ninstance: \xff", `F:2: not UTF-8 text`},
		{"UTF-16", "s\x00e\x00", `F:1: not UTF-8 text`},
		{"too large", "service: a\n#" + strings.Repeat("x", maxFileBytes), `F: 1048588 bytes are too many, at most 1048576`},
		{"empty file", "", `service: required`},
		{"comments only", "# nothing\n", `service: required`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := problems(t, Source{File: write(t, row.text)})
			if !slices.ContainsFunc(got, func(p string) bool { return strings.HasPrefix(p, row.want) }) {
				t.Errorf("got %q, want one that begins with %q", got, row.want)
			}
		})
	}
	if got := problems(t, Source{File: write(t, "\ufeffservice: a\napp:\n")}); got != nil {
		t.Errorf("got %q for a file with BOM and an empty section, want nothing", got)
	}
}

func TestFileThatIsNone(t *testing.T) {
	if got, want := problems(t, Source{File: filepath.Join(t.TempDir(), "absent"), Flags: map[string][]string{"service": {"a"}}}), []string{"F: no such file or directory"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := problems(t, Source{File: t.TempDir(), Flags: map[string][]string{"service": {"a"}}}), []string{"F: not a regular file"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	t.Chdir(t.TempDir())
	if got := problems(t, Source{Flags: map[string][]string{"service": {"a"}}}); got != nil {
		t.Errorf("got %q without a default file, want nothing", got)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	got := problems(t, Source{
		File:    write(t, "servise: x\napp:\n  timeout: 10\nretry:\n  initial: 2h\n"),
		Environ: []string{"HOOKSIDECAR_APP_CONCURRENCY=many", "HOOKSIDECAR_INSTANCE=Bad_Name"},
		Flags:   map[string][]string{"log.format": {"xml"}},
	})
	for _, want := range []string{"F:1: there is no", "F:3: app.timeout", "F:5: ", "HOOKSIDECAR_APP_CONCURRENCY: ", "HOOKSIDECAR_INSTANCE: ", "--log-format: ", "service: required"} {
		if !slices.ContainsFunc(got, func(p string) bool {
			return strings.HasPrefix(p, want) || want == "F:5: " && strings.Contains(p, "greatest wait")
		}) {
			t.Errorf("got %q, which lacks %q", got, want)
		}
	}
}

func TestChecks(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, value string
		want        string // "": fine
	}{
		{"service", "a", ""},
		{"service", "A", "is not a service name"},
		{"service", "a.b", "is not a service name"},
		{"service", strings.Repeat("a", 64), "is not a service name"},
		{"app.url", "http://user:pw@localhost:1", "user name or password"},
		{"app.url", "localhost:1", "is not a URL"},
		{"app.url", "http://localhost:1/x?y", "query or fragment"},
		{"app.readiness_url", "ftp://x", "is not a URL"},
		{"peers", "http://localhost:1/path", "has a path"},
		{"peer.advertise", "http://0.0.0.0:9902", "nobody can connect"},
		{"app.listen", "0.0.0.0:9901", "can be reached from elsewhere"},
		{"admin.listen", ":9903", "can be reached from elsewhere"},
		{"peer.listen", ":9902", ""},
		{"peer.listen", "unix:/tmp/x", "cannot reach a unix socket"},
		{"app.listen", "unix:/tmp/x", ""},
		{"app.listen", "unix:x", "absolute path"},
		{"app.listen", "unix:/" + strings.Repeat("x", 200), "at most"},
		{"app.listen", "::1:9901", "is not an address"},
		{"app.listen", "[::1]:9901", ""},
		{"app.listen", "localhost:65536", "up to 65535"},
		{"app.listen", "localhost:http", "up to 65535"},
		{"app.listen", "localhost:9902", "another listener"},
		{"port_base", "0", "out of range"},
		{"port_base", "65535", "out of range"},
		{"app.timeout", "0s", "out of range"},
		{"app.concurrency", "0", "out of range"},
		{"retry.max_attempts", "0", "attempts"},
		{"retry.initial", "11m", "shorter than the first"},
		{"outbox.max_event_bytes", "1000001", "out of range"},
		{"outbox.retention", "0s", "too short"},
		{"data_dir", "/", "root directory"},
		{"keys.signing", "data/order/x.key", "inside the data directory"},
		{"app.subscriptions", "order.", "F"},
		{"app.subscriptions", "order.*", "app.url does not say"},
		{"app.secret", "whsec_AAAA", "F"},
		{"app.secret", "hunter2", "F"},
		{"app.secret_file", "/nonexistent", "no such file"},
		{"admin.token_file", secret, ""},
	} {
		t.Run(row.name+"="+row.value, func(t *testing.T) {
			flags := map[string][]string{"service": {"order"}}
			flags[row.name] = []string{row.value}
			got := strings.Join(problems(t, Source{Flags: flags}), "\n")
			switch {
			case row.want == "" && got != "":
				t.Errorf("got %q, want nothing", got)
			case row.want == "F" && got == "", row.want != "F" && !strings.Contains(got, row.want):
				t.Errorf("got %q, want %q", got, row.want)
			}
			if row.name == "app.secret" && strings.Contains(got, row.value) {
				t.Errorf("%q shows the secret", got)
			}
		})
	}
}

func TestSecretsOfOthersAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for _, row := range []struct {
		setting, text string
	}{{"app.secret_file", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"}, {"admin.token_file", "0123456789abcdef0123456789abcdef\n"}} {
		if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []os.FileMode{0o600, 0o400, 0o640, 0o604, 0o620, 0o644} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			got := strings.Join(problems(t, Source{Flags: map[string][]string{"service": {"a"}, row.setting: {path}}}), "\n")
			refused := strings.Contains(got, "--"+strings.NewReplacer(".", "-", "_", "-").Replace(row.setting)+": ") && strings.Contains(got, "chmod 600 "+path)
			if mode.Perm()&0o077 == 0 && got != "" || mode.Perm()&0o077 != 0 && !refused {
				t.Errorf("%s of mode %04o: got %q", row.setting, mode, got)
			}
			if strings.Contains(got, strings.TrimSpace(row.text)) {
				t.Errorf("%q shows the secret", got)
			}
		}
	}
}

func TestUnknownEnvironmentIsAWarning(t *testing.T) {
	loaded, err := Load(Source{Flags: map[string][]string{"service": {"a"}}, Environ: []string{
		"HOOKSIDECAR_APP_URI=http://x:1", "HOOKSIDECAR_SERVICE_HOST=10.0.0.1", "HOOKSIDECAR_PORT=tcp://10.0.0.1:80", "HOOKSIDECAR_ADMIN=x"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"HOOKSIDECAR_APP_URI in the environment is no setting and is ignored; is HOOKSIDECAR_APP_URL meant?"}
	if !slices.Equal(loaded.Warnings, want) {
		t.Errorf("got %q, want %q", loaded.Warnings, want)
	}
}

func TestParseDuration(t *testing.T) {
	for _, row := range []struct {
		text string
		want time.Duration // -1: refused
	}{
		{"10s", 10 * time.Second}, {"0s", 0}, {"7d", 168 * time.Hour}, {"1d12h", 36 * time.Hour}, {"1h30m", 90 * time.Minute}, {"1.5h", 90 * time.Minute},
		{"", -1}, {"0", -1}, {"10", -1}, {"10 s", -1}, {"-1s", -1}, {"+1s", -1}, {"1y", -1}, {"1e9h", -1}, {"-1d", -1}, {"1d-1h", -1},
		{"d", -1}, {"1d ", -1}, {"1000000000000d", -1}, {"2562047h", -1}, {"36501d", -1},
	} {
		got, err := ParseDuration(row.text)
		if err != nil {
			got = -1
		}
		if got != row.want {
			t.Errorf("%q: got %v (%v), want %v", row.text, got, err, row.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for _, row := range []struct {
		text string
		want Bytes // -1: refused
	}{
		{"0", 0}, {"10", 10}, {"10 MiB", 10 << 20}, {"10MiB", 10 << 20}, {"1 KiB", 1 << 10}, {"2 GiB", 2 << 30}, {"1 TiB", 1 << 40},
		{"10MB", -1}, {"10 mib", -1}, {"10  MiB", -1}, {"-1", -1}, {"1.5 GiB", -1}, {"", -1}, {"MiB", -1}, {"9999999 TiB", -1}, {"0x10", -1}, {"1_000", -1}, {"010", -1},
	} {
		got, err := ParseBytes(row.text)
		if err != nil {
			got = -1
		}
		if got != row.want {
			t.Errorf("%q: got %v (%v), want %v", row.text, got, err, row.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("service: a\napp:\n  subscriptions: [{types: [a.b], retry: {initial: 1s}}]\n")
	f.Add("a: &a [*a, *a]\n? {x: y}\n: z\n<<: *a")
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{config: Defaults(), where: map[string]string{}}
		l.yaml("F", []byte(text)) // must not panic or hang
		l.config.fillIn()
		l.check()
	})
}
