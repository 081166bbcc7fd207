package config

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// yaml takes settings out of the text of file name.
func (l *loader) yaml(name string, text []byte) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if at := invalidUTF8(text); at > 0 || bytes.IndexByte(text, 0) >= 0 {
		l.problem(fmt.Sprintf("%s:%d", name, max(at, 1)), "not UTF-8 text")
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case err == io.EOF:
		return // nothing but comments
	case err != nil:
		l.syntax(name, err)
		return
	}
	f := &file{loader: l, name: name, sections: sections()}
	if err := dec.Decode(&second); err == nil {
		f.wrong(&second, "a second document: one file holds one configuration")
	} else if err != io.EOF {
		l.syntax(name, err)
	}
	if len(doc.Content) == 1 && !isNull(doc.Content[0]) {
		f.section("", doc.Content[0])
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func (l *loader) syntax(name string, err error) {
	where, text := name+":1", err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if text = m[2]; m[1] != "" {
			where = name + ":" + m[1]
		}
	}
	l.problem(where, "not YAML: %s", text)
}

// invalidUTF8 returns the line of the first byte that is not UTF-8; 0: there is none.
func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return 0
	}
	line := 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		text = text[size:]
	}
	return line
}

// A file is a YAML file being read.
type file struct {
	*loader
	name     string
	sections map[string][]string
}

// sections returns, for each section ("" is the top), the keys that it may hold.
func sections() map[string][]string {
	all := map[string][]string{}
	for _, s := range Settings() {
		prefix, key := "", s.Name
		if section, rest, ok := strings.Cut(s.Name, "."); ok {
			prefix, key = section, rest
			if !slices.Contains(all[""], section) {
				all[""] = append(all[""], section)
			}
		}
		all[prefix] = append(all[prefix], key)
	}
	return all
}

func (f *file) at(n *yaml.Node) string { return f.name + ":" + strconv.Itoa(n.Line) }

func (f *file) wrong(n *yaml.Node, format string, args ...any) { f.problem(f.at(n), format, args...) }

// plain reports whether n uses only what this file may use, and says so if not.
func (f *file) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Tag == "!!merge":
		f.wrong(n, "aliases and merge keys are not supported: write the value out")
	case n.Anchor != "":
		f.wrong(n, "anchors are not supported: write the value out where it is needed")
	case n.Style&yaml.TaggedStyle != 0:
		f.wrong(n, "tags (%s) are not supported", n.Tag)
	default:
		return true
	}
	return false
}

// members calls take for each member of mapping n, and reports keys that are wrong, unknown or there twice.
func (f *file) members(n *yaml.Node, section string, keys []string, take func(key string, value *yaml.Node)) {
	if !f.plain(n) || isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		f.wrong(n, "%s is a section: write \"key: value\" lines below it", orFile(section))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !f.plain(key):
		case key.Kind != yaml.ScalarNode:
			f.wrong(key, "a key is plain text")
		case lines[key.Value] > 0:
			f.wrong(key, "%s is set twice, first in line %d", join(section, key.Value), lines[key.Value])
		case !slices.Contains(keys, key.Value):
			f.unknown(key, section, keys)
		default:
			take(key.Value, value)
		}
		lines[key.Value] = key.Line
	}
}

func (f *file) unknown(key *yaml.Node, section string, keys []string) {
	text := fmt.Sprintf("there is no setting %q", join(section, key.Value))
	if near := Nearest(key.Value, keys); near != "" {
		text += fmt.Sprintf("; is %q meant?", join(section, near))
	} else if s, ok := byFlag(key.Value); ok {
		text += fmt.Sprintf("; --%s is %q in the file", s.Flag, s.Name)
	}
	f.wrong(key, "%s", text)
}

func byFlag(name string) (Setting, bool) {
	for _, s := range Settings() {
		if s.Flag == strings.ReplaceAll(name, "_", "-") {
			return s, true
		}
	}
	return Setting{}, false
}

// section reads the settings of one section, and of the sections in it.
func (f *file) section(section string, n *yaml.Node) {
	f.members(n, section, f.sections[section], func(key string, value *yaml.Node) {
		name := join(section, key)
		if f.sections[name] != nil && section == "" {
			f.section(name, value)
			return
		}
		for _, s := range Settings() {
			if s.Name == name {
				f.where[name] = f.at(value)
				f.value(name, s.field(&f.config), value)
			}
		}
	})
}

// value reads one setting into p.
func (f *file) value(name string, p any, n *yaml.Node) {
	switch p := p.(type) {
	case *[]string:
		*p = f.list(name, n)
	case *[]Subscription:
		*p = f.subscriptions(name, n)
	default:
		f.scalar(name, p, n)
	}
}

func (f *file) scalar(name string, p any, n *yaml.Node) {
	_, text := p.(*string)
	switch {
	case !f.plain(n):
	case n.Kind != yaml.ScalarNode:
		f.wrong(n, "%s takes one value", name)
	case isNull(n) || n.Value == "":
		f.wrong(n, "%s has no value: write one or remove the line", name)
	case text && n.Tag != "!!str" && n.Tag != "!!timestamp":
		f.wrong(n, "%s is text: write %s: %q", name, lastKey(name), n.Value)
	default:
		if err := setScalar(p, n.Value); err != nil {
			f.wrong(n, "%s: %v", name, err)
		}
	}
}

func (f *file) list(name string, n *yaml.Node) (values []string) {
	for _, item := range f.items(name, n) {
		var value string
		f.scalar(name, &value, item)
		if value != "" {
			values = append(values, value)
		}
	}
	return values
}

func (f *file) items(name string, n *yaml.Node) []*yaml.Node {
	if !f.plain(n) || isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		f.wrong(n, "%s is a list: write [a, b], or \"- a\" lines", name)
		return nil
	}
	return n.Content
}

func (f *file) subscriptions(name string, n *yaml.Node) (all []Subscription) {
	for i, item := range f.items(name, n) {
		var s Subscription
		place := fmt.Sprintf("%s[%d]", name, i)
		f.where[place] = f.at(item)
		f.members(item, place, []string{"types", "path", "from", "retry"}, func(key string, value *yaml.Node) {
			switch key {
			case "types":
				s.Types = f.list(place+".types", value)
			case "path":
				f.scalar(place+".path", &s.Path, value)
			case "from":
				f.scalar(place+".from", &s.From, value)
			case "retry":
				f.retry(place+".retry", &s.Retry, value)
			}
		})
		all = append(all, s)
	}
	return all
}

func (f *file) retry(place string, r *Retry, n *yaml.Node) {
	fields := map[string]any{"initial": &r.Initial, "max_interval": &r.MaxInterval, "max_attempts": &r.MaxAttempts}
	f.members(n, place, []string{"initial", "max_interval", "max_attempts"}, func(key string, value *yaml.Node) {
		f.scalar(place+"."+key, fields[key], value)
	})
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func join(section, key string) string {
	if section == "" {
		return key
	}
	return section + "." + key
}

func orFile(section string) string {
	if section == "" {
		return "the file"
	}
	return section
}

func lastKey(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }
