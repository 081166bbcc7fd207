package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// outputFlag is on every command that reads.
func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, json, ndjson"}
}

// outputFormat returns the format that was asked for.
func outputFormat(c *cli.Context) (string, error) {
	switch format := c.String("output"); format {
	case "table", "json", "ndjson":
		return format, nil
	default:
		return "", misuse("--output %q is none of table, json, ndjson", format)
	}
}

// printJSON prints v on many lines, or on one for ndjson.
func printJSON(w io.Writer, format string, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if format == "json" {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// A table lines up columns: numbers to the right, all else to the left. Cells are escaped, and stay on one line.
type table struct {
	w    io.Writer
	head bool // the first row names the columns
	rows [][]cell
}

type cell struct {
	text   string
	number bool
}

func newTable(w io.Writer, head ...string) *table {
	t := &table{w: w, head: len(head) > 0}
	if t.head {
		names := make([]cell, len(head))
		for i, name := range head {
			names[i].text = name
		}
		t.rows = append(t.rows, names)
	}
	return t
}

func (t *table) row(values ...any) {
	cells := make([]cell, len(values))
	for i, v := range values {
		cells[i].text = oneLine(fmt.Sprint(v))
		switch v.(type) {
		case int, int64, uint64:
			cells[i].number = t.head // in a list of names and values everything is to the left
		}
	}
	t.rows = append(t.rows, cells)
}

// flush writes the table. A column's name is where its cells are.
func (t *table) flush() error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	if t.head && len(t.rows) > 1 {
		for i := range t.rows[0] {
			t.rows[0][i].number = i < len(t.rows[1]) && t.rows[1][i].number
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			if c.number {
				line.WriteString(pad + c.text + "  ")
			} else {
				line.WriteString(c.text + pad + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// shorten cuts s to at most n characters: -o json has all of it.
func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// counted is n and what it counts.
func counted[N int | int64 | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// escape makes text that came from elsewhere harmless for a terminal: what is not a visible character, and no line break, is
// written out.
func escape(s string) string {
	if !strings.ContainsFunc(s, hidden) && strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		if hidden(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// oneLine is escape for text that must not break the layout.
func oneLine(s string) string { return strings.ReplaceAll(escape(s), "\n", " ") }

// moment writes t for people; a zero one is a dash.
func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}

// size writes n bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
