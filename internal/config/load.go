package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultFile is read when no other file is named, if it is there.
const DefaultFile = "hooksidecar.yaml"

// A Source is what Load reads.
type Source struct {
	File    string              // "": HOOKSIDECAR_CONFIG, else DefaultFile if it is there
	Environ []string            // as os.Environ gives it
	Flags   map[string][]string // values by setting name, of the flags that were given
}

// Loaded is a checked Config and what is worth saying about it.
type Loaded struct {
	Config   Config
	File     string   // the file that was read; "": none
	Warnings []string // environment variables that look like settings and are none
}

// Load reads and checks everything. Its error is an *Error.
func Load(src Source) (Loaded, error) {
	l := &loader{config: Defaults(), where: map[string]string{}}
	env := environ(src.Environ)
	out := Loaded{File: l.file(src.File, env["HOOKSIDECAR_CONFIG"])}
	out.Warnings = l.environment(env)
	l.flags(src.Flags)
	l.secrets()
	l.config.fillIn()
	l.check()
	out.Config = l.config
	if len(l.problems) > 0 {
		return out, &Error{Problems: l.problems}
	}
	return out, nil
}

// A loader collects values, where each came from, and everything that is wrong.
type loader struct {
	config   Config
	where    map[string]string // by setting name
	problems []Problem
}

func (l *loader) problem(where, format string, args ...any) {
	l.problems = append(l.problems, Problem{Where: where, Message: fmt.Sprintf(format, args...)})
}

// wrong reports a problem with a setting, at the place it came from.
func (l *loader) wrong(name, format string, args ...any) {
	where := l.where[name]
	if where == "" {
		where = name
	}
	l.problem(where, format, args...)
}

// file reads the file that was asked for, or the default one if it is there. It returns the name of what it read.
func (l *loader) file(flag, env string) string {
	name, asked := flag, true
	if name == "" {
		name = env
	}
	if name == "" {
		name, asked = DefaultFile, false
	}
	text, err := readFile(name)
	if !asked && errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		l.problem(name, "%v", err)
		return name
	}
	l.yaml(name, text)
	return name
}

func environ(entries []string) map[string]string {
	env := map[string]string{}
	for _, entry := range entries {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" && strings.HasPrefix(name, envPrefix) {
			env[name] = value
		}
	}
	return env
}

// environment takes settings out of env and returns a warning for each variable that is none. They are no errors, since
// Kubernetes makes variables such as HOOKSIDECAR_SERVICE_HOST for a Service of that name.
func (l *loader) environment(env map[string]string) (warnings []string) {
	var names []string
	for _, s := range Settings() {
		names = append(names, s.Env())
		value, ok := env[s.Env()]
		if !ok {
			continue
		}
		delete(env, s.Env())
		values := []string{value}
		if s.Repeatable() {
			values = splitList(value)
		}
		l.take(s, s.Env(), values)
	}
	for name := range env {
		if otherEnv(name) || strings.HasPrefix(name, "HOOKSIDECAR_SERVICE_") || strings.HasPrefix(name, "HOOKSIDECAR_PORT") {
			continue
		}
		text := name + " in the environment is no setting and is ignored"
		if near := Nearest(name, names); near != "" {
			text += "; is " + near + " meant?"
		}
		warnings = append(warnings, text)
	}
	slices.Sort(warnings)
	return warnings
}

func splitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func (l *loader) flags(given map[string][]string) {
	for _, s := range Settings() {
		if values, ok := given[s.Name]; ok {
			l.take(s, "--"+s.Flag, values)
		}
	}
}

// take sets s from values that were found at where.
func (l *loader) take(s Setting, where string, values []string) {
	l.where[s.Name] = where
	if err := s.set(&l.config, values); err != nil {
		l.problem(where, "%v", err)
	}
}

// secrets reads the files that hold secrets. What they hold is never part of a message.
func (l *loader) secrets() {
	c := &l.config
	if c.App.SecretFile != "" {
		lines, err := readSecrets(c.App.SecretFile)
		switch {
		case c.App.Secret != "":
			l.wrong("app.secret_file", "app.secret and app.secret_file are both set: keep the file")
		case err != nil:
			l.wrong("app.secret_file", "%s: %v", c.App.SecretFile, err)
		case len(lines) != 1:
			l.wrong("app.secret_file", "%s has %d lines, it should hold one secret", c.App.SecretFile, len(lines))
		default:
			c.App.Secret = lines[0]
			l.where["app.secret"] = c.App.SecretFile
		}
	}
	if c.Admin.TokenFile != "" {
		lines, err := readSecrets(c.Admin.TokenFile)
		switch {
		case err != nil:
			l.wrong("admin.token_file", "%s: %v", c.Admin.TokenFile, err)
		case len(lines) == 0:
			l.wrong("admin.token_file", "%s is empty", c.Admin.TokenFile)
		default:
			c.Admin.Tokens = lines
		}
	}
}

// ReadToken returns the first token of a token file, for a client.
func ReadToken(path string) (string, error) {
	lines, err := readLines(path)
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return "", err
	}
	return lines[0], nil
}

// readSecrets returns the lines of a file that nobody but its owner may use.
func readSecrets(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("mode %04o lets others than its owner use it: chmod 600 %s", info.Mode().Perm(), path)
	}
	return readLines(path)
}

// readLines returns the lines of a small file, without those that are empty or comments.
func readLines(path string) ([]string, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// maxFileBytes is far more than anybody writes by hand.
const maxFileBytes = 1 << 20

// readFile reads a regular file of at most maxFileBytes. Its errors do not repeat the name.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, bareError(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%d bytes are too many, at most %d", info.Size(), maxFileBytes)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, bareError(err)
	}
	return text, nil
}

// bareError takes name and operation off err, which the message has already.
func bareError(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// fillIn completes what follows from other settings.
func (c *Config) fillIn() {
	if c.DataDir == "" && c.Service != "" {
		c.DataDir = filepath.Join("data", c.Service)
	}
	if c.Keys.Signing == "" && c.Service != "" {
		c.Keys.Signing = filepath.Join("keys", c.Service+".key")
	}
	for i, listen := range []*string{&c.App.Listen, &c.Peer.Listen, &c.Admin.Listen} {
		if *listen == "" {
			*listen = Address{Host: "localhost", Port: uint16(c.PortBase + i)}.String()
		}
	}
	c.App.URL = strings.TrimRight(c.App.URL, "/")
	u, err := url.Parse(c.App.URL)
	for i := range c.App.Subscriptions {
		s := &c.App.Subscriptions[i]
		if s.Path == "" && err == nil && u.Path == "" {
			s.Path = "/events"
		}
		if s.From == "" {
			s.From = "latest"
		}
		s.Retry = s.Retry.or(c.Retry)
	}
}

func (r Retry) or(fallback Retry) Retry {
	if r.Initial == 0 {
		r.Initial = fallback.Initial
	}
	if r.MaxInterval == 0 {
		r.MaxInterval = fallback.MaxInterval
	}
	if r.MaxAttempts == 0 {
		r.MaxAttempts = fallback.MaxAttempts
	}
	return r
}
