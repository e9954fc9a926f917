package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// verdict is what an attempt means.
type verdict uint8

const (
	delivered verdict = iota // 2xx
	failed                   // anything else: try again by the schedule
	throttled                // 429: the endpoint wants fewer requests; no attempt
	gone                     // 410: the endpoint wants none any more
)

var verdictNames = [...]string{"delivered", "failed", "throttled", "gone"}

func (v verdict) String() string { return verdictNames[v] }

// outcome is one attempt.
type outcome struct {
	verdict verdict
	status  int           // 0 without a response
	pause   time.Duration // Retry-After; 0: none
	busy    bool          // the whole endpoint should be left alone for a while
	reason  string        // of a failure, for people
}

// sender makes requests to one endpoint.
type sender struct {
	url    string
	keys   []key
	client *http.Client
}

// maxReply is how much of a response is read, so that its connection can be
// used again.
const maxReply = 64 << 10

// newSender takes the endpoint's secrets from environment and files.
func newSender(e *Endpoint, getenv func(string) string) (*sender, error) {
	keys, err := e.keys(getenv)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: min(e.Timeout, 10*time.Second), KeepAlive: 30 * time.Second, ControlContext: guard(e.AllowNetworks)}
	return &sender{url: e.URL, keys: keys, client: &http.Client{
		Timeout: e.Timeout,
		// A redirect is a failure: its target was not configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			// No proxy of the environment: it would connect where the guard does not see.
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    min(e.Timeout, 10*time.Second),
			MaxIdleConnsPerHost:    e.Concurrency,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxReply,
			DisableCompression:     true,
		},
	}}, nil
}

// signature signs a message by every key.
// Standard Webhooks 1.0.0, "Signature scheme": HMAC-SHA256 over id.timestamp.body.
func signature(keys []key, id string, timestamp int64, body []byte) string {
	var list []string
	for _, k := range keys {
		h := hmac.New(sha256.New, k)
		fmt.Fprintf(h, "%s.%d.", id, timestamp)
		h.Write(body)
		list = append(list, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(list, " ")
}

// send makes one attempt.
func (s *sender) send(ctx context.Context, c *change) outcome {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(c.body))
	if err != nil {
		return outcome{verdict: failed, reason: err.Error()}
	}
	now := time.Now()
	r.Header.Set("User-Agent", "tierstream-webhooks")
	r.Header.Set("webhook-id", c.id)
	r.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	r.Header.Set("webhook-signature", signature(s.keys, c.id, now.Unix(), c.body))
	// The change is a CloudEvent, here in the HTTP binding's binary mode.
	for _, h := range c.headers {
		if name, ok := strings.CutPrefix(h.Key, "ce_"); ok {
			r.Header.Set("ce-"+name, escape(string(h.Value)))
		} else if h.Key == "content-type" {
			r.Header.Set("Content-Type", string(h.Value))
		}
	}

	reply, err := s.client.Do(r)
	if err != nil {
		var forbidden *forbiddenError
		switch {
		case errors.As(err, &forbidden):
			return outcome{verdict: failed, reason: forbidden.Error()}
		case errors.Is(err, context.DeadlineExceeded) || isTimeout(err):
			return outcome{verdict: failed, reason: "no answer within " + s.client.Timeout.String()}
		}
		return outcome{verdict: failed, reason: cause(err)}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(reply.Body, maxReply)) // the status has said it all
	_ = reply.Body.Close()
	return judge(reply, now)
}

// judge applies the specification's "Delivery success and failure".
func judge(reply *http.Response, now time.Time) outcome {
	o := outcome{verdict: failed, status: reply.StatusCode, pause: retryAfter(reply.Header, now), reason: reply.Status}
	switch {
	case reply.StatusCode >= 200 && reply.StatusCode < 300:
		return outcome{verdict: delivered, status: reply.StatusCode}
	case reply.StatusCode >= 300 && reply.StatusCode < 400:
		o.reason += ": redirects are not followed: configure the new address"
	case reply.StatusCode == http.StatusGone:
		o.verdict = gone
	case reply.StatusCode == http.StatusTooManyRequests:
		o.verdict, o.busy = throttled, true
	case reply.StatusCode == http.StatusBadGateway, reply.StatusCode == http.StatusGatewayTimeout,
		reply.StatusCode == http.StatusServiceUnavailable && o.pause > 0:
		o.busy = true
	}
	return o
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// cause drops what net/http puts around an error: method and URL, and a URL may
// hold a token.
func cause(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return err.Error()
}

// escape is the header encoding of the CloudEvents HTTP binding 1.0.2, section
// 3.1.3.2: what is not printable ASCII, and space, quote and percent.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// forbiddenError is an address that no receiver may have.
type forbiddenError struct{ addr netip.Addr }

func (e *forbiddenError) Error() string {
	return fmt.Sprintf("%s is not a public address: set allow_networks if it is meant", e.addr)
}

// guard refuses to connect to addresses that are not public, so that an
// endpoint's URL cannot reach what only this machine can. It sees the address
// that is connected to, after names were resolved: a name that resolves to
// something else the second time does not get around it.
func guard(allowed []netip.Prefix) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("connecting to %s: %w", address, err)
		}
		addr := at.Addr().Unmap().WithZone("")
		if public(addr) || slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return nil
		}
		return &forbiddenError{addr}
	}
}

// special are the blocks of the IANA special-purpose address registries (RFC
// 6890) that netip has no word for and that are not globally reachable, or lead
// to an IPv4 address inside an IPv6 one.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // carrier-grade NAT
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"),        // IPv4-compatible
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), // Teredo and others
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("fec0::/10"), // site-local
}

// public reports whether an address is reachable for everybody.
func public(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}
