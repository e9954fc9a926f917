package webhook

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/twmb/franz-go/pkg/kgo"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// endpointAt is an endpoint at a test server, with secrets of its own.
func endpointAt(t *testing.T, url string) (*Endpoint, func(string) string) {
	t.Helper()
	secrets := map[string]string{"NEW": NewSecret(), "OLD": NewSecret()}
	e := &Endpoint{Name: "crm", URL: url, Secrets: []Secret{{Env: "NEW"}, {Env: "OLD"}}, AllowHTTP: true, AllowNetworks: loopback}
	e.defaults()
	if err := e.validate(); err != nil {
		t.Fatal(err)
	}
	return e, func(name string) string { return secrets[name] }
}

func testChange() *change {
	c := &change{id: "0123abcd", customer: "c ü", sequence: 7, body: []byte("{\"customer_id\": \"c ü\"}\n")}
	c.headers = []kgo.RecordHeader{
		{Key: "ce_id", Value: []byte(c.id)}, {Key: "ce_subject", Value: []byte(c.customer)}, {Key: "ce_type", Value: []byte("io.tierstream.tier-change.v1")},
		{Key: "content-type", Value: []byte("application/json")}, {Key: "tierstream-secret-of-ours", Value: []byte("x")},
	}
	return c
}

// The official library accepts what is sent, by the new secret and by the old
// one, and nothing else.
func TestOfficialLibraryVerifiesRequests(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		body = make([]byte, r.ContentLength)
		_, _ = r.Body.Read(body)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	e, getenv := endpointAt(t, server.URL+"/hook?a=b")
	s, err := newSender(e, getenv)
	if err != nil {
		t.Fatal(err)
	}
	c := testChange()
	if o := s.send(t.Context(), c); o.verdict != delivered || o.status != 202 {
		t.Fatalf("got %+v", o)
	}
	if string(body) != string(c.body) || got.Method != http.MethodPost || got.URL.String() != "/hook?a=b" {
		t.Errorf("got %s %s %q", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"Webhook-Id": "0123abcd", "Ce-Id": "0123abcd", "Ce-Subject": "c%20%C3%BC", "Ce-Type": "io.tierstream.tier-change.v1",
		"Content-Type": "application/json", "Tierstream-Secret-Of-Ours": "", "User-Agent": "tierstream-webhooks",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	for _, name := range []string{"NEW", "OLD"} {
		verifier, err := standardwebhooks.NewWebhook(getenv(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(body, got.Header); err != nil {
			t.Errorf("secret %s: %v", name, err)
		}
		if err := verifier.Verify(append(body, ' '), got.Header); err == nil {
			t.Errorf("secret %s verifies another body", name)
		}
	}
	stranger, err := standardwebhooks.NewWebhook(NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Verify(body, got.Header); err == nil {
		t.Error("a stranger's secret verifies the request")
	}
}

// The value that the library's own test expects.
func TestSignatureIsThePublishedOne(t *testing.T) {
	k, err := parseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := signature([]key{k}, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnswersAreJudgedByTheStandard(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		status  int
		after   string
		verdict verdict
		busy    bool
		pause   time.Duration
	}{
		{200, "", delivered, false, 0},
		{204, "7", delivered, false, 0},
		{299, "", delivered, false, 0},
		{301, "", failed, false, 0},
		{307, "", failed, false, 0},
		{400, "", failed, false, 0},
		{404, "", failed, false, 0},
		{410, "", gone, false, 0},
		{429, "", throttled, true, 0},
		{429, "120", throttled, true, 2 * time.Minute},
		{429, "0", throttled, true, time.Second},
		{429, "Thu, 01 Jan 2026 00:05:00 GMT", throttled, true, 5 * time.Minute},
		{429, "Thu, 01 Jan 2026 00:00:00 GMT", throttled, true, time.Second},
		{429, "999999999", throttled, true, maxRetryAfter},
		{429, "soon", throttled, true, 0},
		{500, "", failed, false, 0},
		{500, "60", failed, false, time.Minute},
		{502, "", failed, true, 0},
		{503, "", failed, false, 0},
		{503, "30", failed, true, 30 * time.Second},
		{504, "", failed, true, 0},
	} {
		r := &http.Response{StatusCode: c.status, Status: fmt.Sprint(c.status), Header: http.Header{}}
		if c.after != "" {
			r.Header.Set("Retry-After", c.after)
		}
		o := judge(r, now)
		if c.verdict == delivered {
			o.pause = 0
		}
		if o.verdict != c.verdict || o.busy != c.busy || o.pause != c.pause {
			t.Errorf("%d with Retry-After %q: got %+v, want %s", c.status, c.after, o, c.verdict)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer target.Close()
	server := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	e, getenv := endpointAt(t, server.URL)
	s, err := newSender(e, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if o := s.send(t.Context(), testChange()); o.verdict != failed || o.status != 307 || !strings.Contains(o.reason, "not followed") || followed {
		t.Errorf("got %+v, followed %v", o, followed)
	}
}

func TestAHangingReceiverTimesOut(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	e, getenv := endpointAt(t, server.URL)
	e.Timeout = 50 * time.Millisecond
	s, err := newSender(e, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if o := s.send(t.Context(), testChange()); o.verdict != failed || o.reason != "no answer within 50ms" {
		t.Errorf("got %+v", o)
	}
}

// What is refused is the address that is connected to, whatever the name was.
func TestPrivateAddressesAreNotCalled(t *testing.T) {
	called := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		e, getenv := endpointAt(t, "http://"+host+":"+port)
		e.AllowNetworks = nil
		s, err := newSender(e, getenv)
		if err != nil {
			t.Fatal(err)
		}
		if o := s.send(t.Context(), testChange()); o.verdict != failed || !strings.Contains(o.reason, "not a public address") {
			t.Errorf("%s: got %+v", host, o)
		}
	}
	if called {
		t.Error("a private address was called")
	}
	// A proxy would connect where nobody looks.
	t.Setenv("HTTP_PROXY", server.URL)
	e, getenv := endpointAt(t, "http://192.0.2.1/")
	e.AllowNetworks = nil
	s, err := newSender(e, getenv)
	if err != nil {
		t.Fatal(err)
	}
	if o := s.send(t.Context(), testChange()); !strings.Contains(o.reason, "192.0.2.1 is not a public address") || called {
		t.Errorf("with a proxy: got %+v, called %v", o, called)
	}
}

func TestPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "93.184.216.34": true, "2606:4700::1111": true, "172.32.0.1": true, "100.128.0.1": true,
		"127.0.0.1": false, "127.255.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "255.255.255.255": false, "224.0.0.1": false, "240.0.0.1": false, "198.18.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fc00::1": false, "fd12::1": false, "ff02::1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::127.0.0.1": false, "2001::1": false, "fec0::1": false,
	} {
		if got := public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: public is %v", addr, got)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := "endpoints: [{name: crm, url: 'https://crm.example/hook', secrets: [{env: S}]}]"
	c, err := ParseConfig([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	e := c.Endpoints[0]
	if e.Timeout != 20*time.Second || e.Concurrency != 8 || e.HoldMB != 32 || e.Start != "end" || !slices.Equal(e.Filter.Modes, []string{"live"}) {
		t.Errorf("defaults are %+v", e)
	}
	for text, want := range map[string]string{
		"endpoints: []": "no endpoints",
		"endpoints: [{name: CRM, url: 'https://x/', secrets: [{env: S}]}]":                                                  `name "CRM"`,
		"endpoints: [{name: crm, url: 'http://x/', secrets: [{env: S}]}]":                                                   "allow_http",
		"endpoints: [{name: crm, url: 'https://u:pw@x/', secrets: [{env: S}]}]":                                             "no user and password",
		"endpoints: [{name: crm, url: 'ftp://x/', secrets: [{env: S}]}]":                                                    "want https://host/path",
		"endpoints: [{name: crm, url: 'https://x/'}]":                                                                       "no secrets",
		"endpoints: [{name: crm, url: 'https://x/', secrets: [{}]}]":                                                        "each is {env: NAME} or {file: PATH}",
		"endpoints: [{name: crm, url: 'https://x/', secrets: [{env: S}], timeout: 2m}]":                                     "want 1s to 60s",
		"endpoints: [{name: crm, url: 'https://x/', secrets: [{env: S}], start: now}]":                                      "want end or beginning",
		"endpoints: [{name: crm, url: 'https://x/', secrets: [{env: S}], filters: {}}]":                                     "field filters not found",
		"endpoints: [{name: a, url: 'https://x/', secrets: [{env: S}]}, {name: a, url: 'https://x/', secrets: [{env: S}]}]": "there is another a",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// Secrets come from environment and files and are never shown.
func TestSecretsAreReadAndNeverShown(t *testing.T) {
	secret := NewSecret()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &Endpoint{Name: "crm", Secrets: []Secret{{File: file}, {Env: "S"}}}
	getenv := func(string) string { return secret }
	keys, err := e.keys(getenv)
	if err != nil || len(keys) != 2 || FormatSecret(keys[0]) != secret || FormatSecret(keys[1]) != secret {
		t.Fatalf("got %v, %v", keys, err)
	}
	for _, shown := range []string{fmt.Sprint(keys), fmt.Sprintf("%+v", e), fmt.Sprintf("%s %v", keys[0], &sender{keys: keys})} {
		if strings.Contains(shown, secret[len(secretPrefix):]) {
			t.Errorf("the secret is shown in %s", shown)
		}
	}
	short := secretPrefix + base64.StdEncoding.EncodeToString(make([]byte, 23))
	for _, bad := range []string{"", "supersecret", secretPrefix + "supersecret!", short} {
		_, err := e.keys(func(string) string { return bad })
		if err == nil || strings.Contains(err.Error(), "supersecret") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestSampleIsAChange(t *testing.T) {
	c := change{id: "x", customer: "webhook-test", body: Sample()}
	got, err := c.content()
	if err != nil || got.New.ID != "gold" || got.Direction != "up" || got.Mode != "test" {
		t.Errorf("got %+v, %v", got, err)
	}
}
