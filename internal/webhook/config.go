package webhook

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is the file of endpoints.
type Config struct {
	Endpoints []Endpoint `yaml:"endpoints"`
}

// Endpoint is one receiver.
type Endpoint struct {
	// Name is part of the consumer group's name and of metrics: lower-case
	// letters, digits and dashes, at most 64. Renaming begins anew.
	Name string `yaml:"name"`
	URL  string `yaml:"url"` // https, unless AllowHTTP

	// Secrets sign every request, the current one first. A second one is for
	// the time of a rotation.
	Secrets []Secret `yaml:"secrets"`
	Filter  Filter   `yaml:"filter"`

	// Start says where an endpoint that was never there begins: end (default) or
	// beginning of what the topic still holds.
	Start string `yaml:"start"`

	Timeout     time.Duration `yaml:"timeout"`     // of one attempt, 1s to 60s; default 20s
	Concurrency int           `yaml:"concurrency"` // requests at a time, 1 to 256; default 8
	HoldMB      int           `yaml:"hold_mb"`     // changes held in memory; default 32

	AllowHTTP     bool           `yaml:"allow_http"`     // without TLS: signed, but not secret
	AllowNetworks []netip.Prefix `yaml:"allow_networks"` // that are not public, such as 10.0.0.0/8
}

// Secret is where a secret stands; exactly one of its fields is set. It never
// holds the secret itself, so that it can be printed.
type Secret struct {
	Env  string `yaml:"env,omitempty"`
	File string `yaml:"file,omitempty"`
}

// Filter selects changes. An empty list selects all, but for Modes, whose
// default is live: history is not news.
type Filter struct {
	Tiers      []string `yaml:"tiers"`      // IDs of the new tier
	Directions []string `yaml:"directions"` // assigned, up, down, …
	Reasons    []string `yaml:"reasons"`    // purchase, return, time_decay, …
	Modes      []string `yaml:"modes"`      // live, backfill
}

// selects reports whether a change is wanted.
func (f *Filter) selects(c *content) bool {
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	return in(f.Tiers, c.New.ID) && in(f.Directions, c.Direction) && in(f.Reasons, c.Reason) && in(f.Modes, c.Mode)
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// ParseConfig reads YAML, fills in defaults and reports everything that is
// wrong. It reads no secrets.
func ParseConfig(text []byte) (*Config, error) {
	var c Config
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("reading endpoints: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	var errs []error
	names := map[string]bool{}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		e.defaults()
		if err := e.validate(); err != nil {
			errs = append(errs, fmt.Errorf("endpoint %d (%s): %w", i+1, e.Name, err))
		}
		if names[e.Name] {
			errs = append(errs, fmt.Errorf("endpoint %d: there is another %s", i+1, e.Name))
		}
		names[e.Name] = true
	}
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("no endpoints"))
	}
	return &c, errors.Join(errs...)
}

func (e *Endpoint) defaults() {
	if e.Timeout == 0 {
		e.Timeout = 20 * time.Second
	}
	if e.Concurrency == 0 {
		e.Concurrency = 8
	}
	if e.HoldMB == 0 {
		e.HoldMB = 32
	}
	if e.Start == "" {
		e.Start = "end"
	}
	if e.Filter.Modes == nil {
		e.Filter.Modes = []string{"live"}
	}
}

func (e *Endpoint) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !namePattern.MatchString(e.Name) {
		wrong("name %q: want lower-case letters, digits and dashes, at most 64", e.Name)
	}
	u, err := url.Parse(e.URL)
	switch {
	case err != nil:
		wrong("url: %w", errors.Unwrap(err)) // without the URL, which may hold a token
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		wrong("url: want https://host/path")
	case u.Scheme == "http" && !e.AllowHTTP:
		wrong("url: http is readable on its way: use https, or set allow_http")
	case u.User != nil:
		wrong("url: no user and password: requests are signed")
	}
	if len(e.Secrets) == 0 {
		wrong("no secrets: `webhooks secret` makes one")
	}
	for _, s := range e.Secrets {
		if (s.Env == "") == (s.File == "") {
			wrong("secrets: each is {env: NAME} or {file: PATH}")
		}
	}
	if e.Start != "end" && e.Start != "beginning" {
		wrong("start %q: want end or beginning", e.Start)
	}
	if e.Timeout < time.Second || e.Timeout > time.Minute {
		wrong("timeout %s: want 1s to 60s", e.Timeout)
	}
	if e.Concurrency < 1 || e.Concurrency > 256 {
		wrong("concurrency %d: want 1 to 256", e.Concurrency)
	}
	if e.HoldMB < 1 {
		wrong("hold_mb %d: want at least 1", e.HoldMB)
	}
	return errors.Join(errs...)
}

// Endpoint finds one by name.
func (c *Config) Endpoint(name string) (*Endpoint, error) {
	for i := range c.Endpoints {
		if c.Endpoints[i].Name == name {
			return &c.Endpoints[i], nil
		}
	}
	return nil, fmt.Errorf("no endpoint %q is configured", name)
}

// key is a signing key.
type key []byte

// String keeps a key out of logs and messages.
func (key) String() string { return "whsec_…" }

// secretPrefix marks a secret, as the specification wants it.
const secretPrefix = "whsec_"

// parseSecret reads whsec_ and base64 of 24 to 64 bytes. Its error never shows
// what it read.
func parseSecret(text string) (key, error) {
	coded, ok := strings.CutPrefix(strings.TrimSpace(text), secretPrefix)
	if !ok {
		return nil, errors.New("not a secret: want whsec_ and base64")
	}
	k, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return nil, errors.New("not a secret: what follows whsec_ is not base64")
	}
	if len(k) < 24 || len(k) > 64 {
		return nil, fmt.Errorf("a secret of %d bytes: want 24 to 64", len(k))
	}
	return k, nil
}

// FormatSecret is a key as people pass it on.
func FormatSecret(k []byte) string { return secretPrefix + base64.StdEncoding.EncodeToString(k) }

// keys reads the endpoint's secrets.
func (e *Endpoint) keys(getenv func(string) string) ([]key, error) {
	var keys []key
	for i, s := range e.Secrets {
		text := ""
		if s.Env != "" {
			if text = getenv(s.Env); text == "" {
				return nil, fmt.Errorf("endpoint %s: secret %d: the environment has no %s", e.Name, i+1, s.Env)
			}
		} else {
			b, err := os.ReadFile(s.File)
			if err != nil {
				return nil, fmt.Errorf("endpoint %s: secret %d: %w", e.Name, i+1, err)
			}
			text = string(b)
		}
		k, err := parseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: secret %d: %w", e.Name, i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}
