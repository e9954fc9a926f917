// Package registry asks a schema registry that speaks Confluent's REST protocol
// (Confluent, Redpanda, Karapace, Apicurio's ccompat) for the schemas of a
// mapping. It only reads.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/tierstream/tierstream/internal/mapping"
)

// Options say where the registry is and who asks.
type Options struct {
	URL      string
	User     string
	Password func() (string, error) // asked at each request; nil with no User
	TLS      *tls.Config            // nil: the system's certificates
}

// Client is a registry. It is safe for concurrent use.
type Client struct{ client *sr.Client }

// timeout of one request. A registry answers from memory.
const timeout = 10 * time.Second

// Open makes a client; it asks nobody.
func Open(o Options) (*Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = o.TLS
	options := []sr.ClientOpt{
		sr.URLs(o.URL), sr.UserAgent("tierstream"),
		sr.HTTPClient(&http.Client{Timeout: timeout, Transport: t}),
	}
	if o.User != "" {
		options = append(options, sr.PreReq(func(r *http.Request) error {
			p, err := o.Password()
			if err == nil {
				r.SetBasicAuth(o.User, p)
			}
			return err
		}))
	}
	c, err := sr.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("opening a client of the schema registry: %w", err)
	}
	return &Client{c}, nil
}

// Reach asks whether the registry answers.
func (c *Client) Reach(ctx context.Context) error {
	if _, err := c.client.SupportedTypes(ctx); err != nil && !missing(err) {
		return fmt.Errorf("asking the schema registry: %w", err)
	}
	return nil
}

// maxReferences bounds how many schemas one of them leads to.
const maxReferences = 200

// Schema implements mapping.Source: the schema of an ID, with all that it
// refers to. The error is mapping.ErrUnknown when the registry says that there
// is none; any other may be over in a moment.
func (c *Client) Schema(ctx context.Context, id int) (*mapping.Schema, error) {
	if id > math.MaxInt32 { // no registry gives such IDs
		return nil, fmt.Errorf("schema %d: %w", id, mapping.ErrUnknown)
	}
	s, err := c.client.SchemaByID(ctx, id)
	if missing(err) {
		return nil, fmt.Errorf("schema %d: %w", id, mapping.ErrUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the registry for schema %d: %w", id, err)
	}
	out := &mapping.Schema{ID: id, Type: s.Type.String()}
	if out.Type == mapping.JSON {
		return out, nil // read as JSON, whatever the schema says
	}
	out.Text = s.Schema
	if err := c.follow(ctx, out, s.References, map[string]bool{}); err != nil {
		return nil, fmt.Errorf("asking the registry for what schema %d refers to: %w", id, err)
	}
	return out, nil
}

// follow adds references, each after its own.
func (c *Client) follow(ctx context.Context, to *mapping.Schema, refs []sr.SchemaReference, seen map[string]bool) error {
	for _, r := range refs {
		if seen[r.Name] {
			continue
		}
		if seen[r.Name] = true; len(seen) > maxReferences {
			return fmt.Errorf("more than %d", maxReferences)
		}
		// Deleting a version hides it, but what refers to it still means it.
		s, err := c.client.SchemaByVersion(sr.WithParams(ctx, sr.ShowDeleted), r.Subject, r.Version)
		if err != nil {
			return fmt.Errorf("%s, version %d of subject %s: %w", r.Name, r.Version, r.Subject, err)
		}
		if err := c.follow(ctx, to, s.References, seen); err != nil {
			return err
		}
		to.References = append(to.References, mapping.Reference{Name: r.Name, Text: s.Schema.Schema})
	}
	return nil
}

// missing is whether the registry answered that it has no such thing.
func missing(err error) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}
