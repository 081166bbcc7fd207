package config

import (
	"fmt"
	"strings"
	"time"
)

// A Setting is one row of the table that file, environment and flags are read by.
type Setting struct {
	Name     string // in the file: section.name
	Flag     string // without dashes
	Category string // heading in the help
	Default  string // as it would be written; "": none
	Help     string // one line
	Secret   bool   // never shown

	field func(*Config) any // pointer to its place: the type of the pointer is the kind of the setting
}

// Env returns the name of the environment variable.
func (s Setting) Env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Name, ".", "_"))
}

// Repeatable reports whether the flag may be given several times. In the environment the values are joined with commas.
func (s Setting) Repeatable() bool {
	switch s.field(&Config{}).(type) {
	case *[]string, *[]Subscription:
		return true
	}
	return false
}

// Switch reports whether the flag stands alone, without a value.
func (s Setting) Switch() bool {
	_, ok := s.field(&Config{}).(*bool)
	return ok
}

// set parses values, one unless s is repeatable, into its place in c.
func (s Setting) set(c *Config, values []string) error {
	switch p := s.field(c).(type) {
	case *[]string:
		*p = values
		return nil
	case *[]Subscription:
		*p = []Subscription{{Types: values}}
		return nil
	}
	if len(values) != 1 {
		return fmt.Errorf("given %d times", len(values))
	}
	return setScalar(s.field(c), values[0])
}

// setScalar parses v by the type of p. What cannot be parsed leaves *p as it is.
func setScalar(p any, v string) error {
	switch p := p.(type) {
	case *string:
		*p = v
		return nil
	case *bool:
		return assign(p, v, parseBool)
	case *int:
		return assign(p, v, parseInt)
	case *Bytes:
		return assign(p, v, ParseBytes)
	case *time.Duration:
		return assign(p, v, ParseDuration)
	}
	panic(fmt.Sprintf("config: no kind for %T", p))
}

func assign[T any](p *T, text string, parse func(string) (T, error)) error {
	v, err := parse(text)
	if err == nil {
		*p = v
	}
	return err
}

const envPrefix = "HOOKSIDECAR_"

// Names in the environment that are no settings of run: the other commands, and this package's own file name.
func otherEnv(name string) bool {
	switch name {
	case "HOOKSIDECAR_CONFIG", "HOOKSIDECAR_ADMIN", "HOOKSIDECAR_APP", "HOOKSIDECAR_TOKEN_FILE":
		return true
	}
	return false
}

// Settings returns the table, in the order in which help shows it.
func Settings() []Setting {
	table := append(commonSettings(), tuningSettings()...)
	for i := range table {
		if table[i].Flag == "" {
			table[i].Flag = strings.NewReplacer(".", "-", "_", "-").Replace(table[i].Name)
		}
	}
	return table
}

func commonSettings() []Setting {
	return []Setting{
		{Name: "service", Category: "Service", Help: "`NAME` of the service that this sidecar belongs to (required)",
			field: func(c *Config) any { return &c.Service }},
		{Name: "instance", Category: "Service", Help: "`NAME` among the instances of the service (default: made from the host name once, then kept)",
			field: func(c *Config) any { return &c.Instance }},
		{Name: "data_dir", Category: "Service", Help: "`DIR` of the store (default: ./data/<service>)",
			field: func(c *Config) any { return &c.DataDir }},
		{Name: "app.url", Category: "App", Help: "`URL` that events are forwarded to (default: none, publish only)",
			field: func(c *Config) any { return &c.App.URL }},
		{Name: "app.subscriptions", Flag: "subscribe", Category: "App", Help: "type `PATTERN` that the app wants, as 'order.*'; repeatable",
			field: func(c *Config) any { return &c.App.Subscriptions }},
		{Name: "app.secret", Category: "App", Secret: true, Help: "`SECRET` (whsec_…) that signs what is forwarded; better in a file",
			field: func(c *Config) any { return &c.App.Secret }},
		{Name: "app.secret_file", Category: "App", Help: "`FILE` that holds the secret",
			field: func(c *Config) any { return &c.App.SecretFile }},
		{Name: "app.timeout", Category: "App", Default: "15s", Help: "`TIME` that the app has for one event",
			field: func(c *Config) any { return &c.App.Timeout }},
		{Name: "app.concurrency", Category: "App", Default: "32", Help: "`N` forwards at once",
			field: func(c *Config) any { return &c.App.Concurrency }},
		{Name: "app.readiness_url", Category: "App", Help: "`URL` to ask while the app seems to be down",
			field: func(c *Config) any { return &c.App.ReadinessURL }},
		{Name: "port_base", Category: "Listeners", Default: "9901", Help: "port `N` of the app listener; peer N+1, admin N+2",
			field: func(c *Config) any { return &c.PortBase }},
		{Name: "app.listen", Category: "Listeners", Help: "`ADDRESS` for the app: host:port or unix:/path (default: localhost:9901)",
			field: func(c *Config) any { return &c.App.Listen }},
		{Name: "peer.listen", Category: "Listeners", Help: "`ADDRESS` for other sidecars (default: localhost:9902)",
			field: func(c *Config) any { return &c.Peer.Listen }},
		{Name: "admin.listen", Category: "Listeners", Help: "`ADDRESS` for operators: host:port or unix:/path (default: localhost:9903)",
			field: func(c *Config) any { return &c.Admin.Listen }},
		{Name: "admin.token_file", Category: "Listeners", Help: "`FILE` with the bearer token of the app and admin listeners; needed off loopback",
			field: func(c *Config) any { return &c.Admin.TokenFile }},
		{Name: "admin.pprof", Category: "Listeners", Default: "false", Help: "serve /debug/pprof/",
			field: func(c *Config) any { return &c.Admin.Pprof }},
		{Name: "peers", Flag: "peer", Category: "Peers", Help: "`URL` of another sidecar, as http://host:9902; repeatable",
			field: func(c *Config) any { return &c.Peers }},
		{Name: "peer.advertise", Category: "Peers", Help: "`URL` at which others reach this sidecar (default: the address that it listens on)",
			field: func(c *Config) any { return &c.Peer.Advertise }},
		{Name: "keys.signing", Category: "Peers", Help: "`FILE` with the key of the service (default: ./keys/<service>.key)",
			field: func(c *Config) any { return &c.Keys.Signing }},
	}
}

func tuningSettings() []Setting {
	return []Setting{
		{Name: "retry.initial", Category: "Retry", Default: "1s", Help: "greatest first `WAIT` after a failed forward; doubled each time",
			field: func(c *Config) any { return &c.Retry.Initial }},
		{Name: "retry.max_interval", Category: "Retry", Default: "10m", Help: "greatest `WAIT`",
			field: func(c *Config) any { return &c.Retry.MaxInterval }},
		{Name: "retry.max_attempts", Category: "Retry", Default: "16", Help: "`N` attempts, then the event is a dead letter",
			field: func(c *Config) any { return &c.Retry.MaxAttempts }},
		{Name: "outbox.retention", Category: "Store", Default: "7d", Help: "`TIME` that delivered events are kept",
			field: func(c *Config) any { return &c.Outbox.Retention }},
		{Name: "outbox.dedup_window", Category: "Store", Default: "7d", Help: "`TIME` that published ids are remembered",
			field: func(c *Config) any { return &c.Outbox.DedupWindow }},
		{Name: "outbox.sources", Flag: "outbox-source", Category: "App", Help: "`NAME` that the app may publish under, besides the service; repeatable",
			field: func(c *Config) any { return &c.Outbox.Sources }},
		{Name: "outbox.max_bytes", Category: "Store", Default: "0", Help: "`SIZE` of all kept events; 0: a quarter of the disk, at most 10 GiB",
			field: func(c *Config) any { return &c.Outbox.MaxBytes }},
		{Name: "outbox.max_event_bytes", Category: "Store", Default: "1000000", Help: "`SIZE` of one event, at most 1000000",
			field: func(c *Config) any { return &c.Outbox.MaxEventBytes }},
		{Name: "inbox.dedup_window", Category: "Store", Default: "7d", Help: "`TIME` that received ids are remembered",
			field: func(c *Config) any { return &c.Inbox.DedupWindow }},
		{Name: "inbox.retention", Category: "Store", Default: "7d", Help: "`TIME` that settled events are kept",
			field: func(c *Config) any { return &c.Inbox.Retention }},
		{Name: "inbox.max_bytes", Category: "Store", Default: "10 GiB", Help: "`SIZE` of events that wait for the app; then senders are told to wait",
			field: func(c *Config) any { return &c.Inbox.MaxBytes }},
		{Name: "store.min_free_bytes", Category: "Store", Default: "0", Help: "intake stops below this free `SIZE`; 0: the greater of 512 MiB and a tenth of the store",
			field: func(c *Config) any { return &c.Store.MinFreeBytes }},
		{Name: "store.ballast_bytes", Category: "Store", Default: "0", Help: "`SIZE` to give up on a full disk; 0: 128 MiB",
			field: func(c *Config) any { return &c.Store.BallastBytes }},
		{Name: "store.unsafe_fs", Category: "Store", Default: "false", Help: "allow a data directory on tmpfs or a network file system",
			field: func(c *Config) any { return &c.Store.UnsafeFS }},
		{Name: "log.level", Category: "Process", Default: "info", Help: "`LEVEL`: debug, info, warn, error",
			field: func(c *Config) any { return &c.Log.Level }},
		{Name: "log.format", Category: "Process", Default: "auto", Help: "`FORMAT`: text, json, auto (text on a terminal)",
			field: func(c *Config) any { return &c.Log.Format }},
		{Name: "shutdown.timeout", Category: "Process", Default: "30s", Help: "`TIME` that stopping may take in all",
			field: func(c *Config) any { return &c.Shutdown.Timeout }},
	}
}
