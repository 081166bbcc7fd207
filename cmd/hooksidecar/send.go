package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// maxSendBytes is more than any event may have: the sidecar says what is too large.
const maxSendBytes = 4 << 20

// members are the flags of send that become members of the envelope.
var members = []struct{ flag, member, usage string }{
	{"id", "id", "`ID` of the event, by which a repeat is known (default: made by the sidecar)"},
	{"key", "key", "`KEY`: events of one key stay in order"},
	{"source", "source", "`NAME` to publish under (default: the service)"},
	{"event-version", "version", "`VERSION` of the type"},
	{"subject", "subject", "`SUBJECT` of the event"},
}

func (p *program) sendCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "data", Value: "{}", Usage: "`JSON`, @FILE, or - for standard input"},
		&cli.StringFlag{Name: "correlation-id", Usage: "`ID` that ties events of one flow together"},
	}
	for _, m := range members {
		flags = append(flags, &cli.StringFlag{Name: m.flag, Usage: m.usage})
	}
	return &cli.Command{
		Name:      "send",
		Usage:     "publish an event through the local sidecar",
		ArgsUsage: "TYPE",
		Description: "  hooksidecar send order.created --key ord_789 --data '{\"orderId\":\"ord_789\"}'\n\n" +
			"Without an answer it is unknown whether the event was stored: send it again with the same --id.",
		Flags: append(flags,
			&cli.StringFlag{Name: "app", Usage: "`ADDRESS` of the sidecar's app listener: http://host:port or unix:/path [$HOOKSIDECAR_APP] (default: " + defaultApp + ")"},
			tokenFlag(), outputFlag()),
		Action: p.send,
	}
}

// published is what the sidecar answers.
type published struct {
	ID            string   `json:"id"`
	Seq           uint64   `json:"seq"`
	CorrelationID string   `json:"correlationId"`
	Duplicate     bool     `json:"duplicate"`
	Subscribers   []string `json:"subscribers"`
}

func (p *program) send(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	data, err := p.readData(c.String("data"))
	if err != nil {
		return err
	}
	envelope, err := buildEnvelope(c, args[0], data)
	if err != nil {
		return err
	}
	endpoint, err := p.appEndpoint(c)
	if err != nil {
		return err
	}
	header := http.Header{}
	if id := c.String("correlation-id"); id != "" {
		header.Set("X-Correlation-ID", id)
	}
	var answer published
	if err := endpoint.Do(c.Context, http.MethodPost, "/outbox", header, envelope, &answer); err != nil {
		return err
	}
	if format != "table" {
		return printJSON(p.stdout, format, answer)
	}
	t := newTable(p.stdout, "ID", "SEQ", "DUPLICATE", "SUBSCRIBERS")
	t.row(answer.ID, answer.Seq, answer.Duplicate, orDash(strings.Join(answer.Subscribers, ",")))
	return t.flush()
}

// readData returns the bytes that become data: they are sent as they are.
func (p *program) readData(from string) ([]byte, error) {
	data := []byte(from)
	var err error
	switch name, file := strings.CutPrefix(from, "@"); {
	case from == "-":
		data, err = io.ReadAll(io.LimitReader(p.stdin, maxSendBytes+1))
	case file:
		data, err = readUpTo(name, maxSendBytes+1)
	}
	if err != nil {
		return nil, misuse("--data: %v", err)
	}
	if data = bytes.TrimSpace(data); !json.Valid(data) {
		return nil, misuse("--data is not JSON; text needs quotes of its own: --data '\"text\"'")
	}
	return data, nil
}

func readUpTo(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// buildEnvelope writes the envelope with data as it is: encoding/json would rewrite it.
func buildEnvelope(c *cli.Context, typ string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	write := func(name, value string) error {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(&b, "%q:%s,", name, text)
		return err
	}
	b.WriteByte('{')
	err := write("type", typ)
	for _, m := range members {
		if c.IsSet(m.flag) && err == nil {
			err = write(m.member, c.String(m.flag))
		}
	}
	fmt.Fprintf(&b, `"data":%s}`, data)
	return b.Bytes(), err
}
