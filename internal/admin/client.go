package admin

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// A Client speaks to the admin listener of one sidecar.
type Client struct{ endpoint *Endpoint }

// NewClient takes an http URL or unix:/path, and a bearer token or "".
func NewClient(address, token string) (*Client, error) {
	e, err := NewEndpoint(address, token)
	if err != nil {
		return nil, err
	}
	return &Client{endpoint: e}, nil
}

// Status asks how the node is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, "/api/v1/status", nil, &s)
}

// Event asks what is known of the events with id, of any source if source is "".
func (c *Client) Event(ctx context.Context, source, id string) (e Event, err error) {
	query := url.Values{}
	if source != "" {
		query.Set("source", source)
	}
	return e, c.get(ctx, "/api/v1/events/"+url.PathEscape(id), query, &e)
}

// Letters asks for one page of dead letters.
func (c *Client) Letters(ctx context.Context, q Query) (page Letters, err error) {
	query := url.Values{}
	for name, value := range map[string]string{"side": q.Side, "subscriber": q.Subscriber, "type": q.Type, "reason": q.Reason, "state": q.State, "after": q.After} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return page, c.get(ctx, "/api/v1/dead-letters", query, &page)
}

// Letter asks for one dead letter with its event.
func (c *Client) Letter(ctx context.Context, id string) (l Letter, err error) {
	return l, c.get(ctx, "/api/v1/dead-letters/"+url.PathEscape(id), nil, &l)
}

// Replay has the event of a dead letter tried again.
func (c *Client) Replay(ctx context.Context, id string) error {
	return c.endpoint.Do(ctx, http.MethodPost, "/api/v1/dead-letters/"+url.PathEscape(id)+"/replay", nil, []byte("{}"), nil)
}

// Resume has forwarding to the app go on. accept says that dead letters are right and not a bad deploy.
func (c *Client) Resume(ctx context.Context, accept bool) error {
	return c.endpoint.Do(ctx, http.MethodPost, "/api/v1/inbox/resume?accept="+strconv.FormatBool(accept), nil, []byte("{}"), nil)
}

// Backup writes the sidecar's store, as it is now, to w. After an error what was written is of no use.
func (c *Client) Backup(ctx context.Context, w io.Writer) (bytes int64, err error) {
	return c.endpoint.Copy(ctx, "/api/v1/backup", w)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.endpoint.Do(ctx, http.MethodGet, path, nil, nil, out)
}
