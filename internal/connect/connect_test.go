package connect

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/tierstream/tierstream/internal/testenv"
)

const hidden = "s3cret-Pa55w0rd"

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func authority(t *testing.T) *testenv.Authority {
	t.Helper()
	a, err := testenv.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *testenv.Authority, name string, hosts ...string) testenv.Pair {
	t.Helper()
	p, err := a.Issue(name, hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What does not fit together is refused, with the flag named and no secret.
func TestRefusals(t *testing.T) {
	password, empty := file(t, "password", hidden+"\n"), file(t, "empty", "\n")
	pair := issue(t, authority(t), "client")
	for name, c := range map[string]struct {
		kafka    Kafka
		password string
		want     string
	}{
		"certificates without TLS":    {Kafka{CA: pair.Cert}, "", "not --kafka-tls"},
		"CA that is none":             {Kafka{TLS: true, CA: password}, "", "has no PEM certificate"},
		"CA that is not there":        {Kafka{TLS: true, CA: password + "x"}, "", "--kafka-ca-file"},
		"certificate without key":     {Kafka{TLS: true, Cert: pair.Cert}, "", "go together"},
		"key that is none":            {Kafka{TLS: true, Cert: pair.Cert, Key: password}, "", "--kafka-key-file"},
		"user without mechanism":      {Kafka{User: "u"}, hidden, "not --kafka-sasl"},
		"token without mechanism":     {Kafka{Token: password}, "", "not --kafka-sasl"},
		"no user":                     {Kafka{Mechanism: "plain", Password: password}, "", "needs --kafka-user"},
		"no password":                 {Kafka{Mechanism: "plain", User: "u"}, "", "--kafka-user has no password"},
		"empty password":              {Kafka{Mechanism: "plain", User: "u", Password: empty}, hidden, "is empty"},
		"no password file":            {Kafka{Mechanism: "scram-sha-256", User: "u", Password: password + "x"}, hidden, "--kafka-password-file"},
		"token for plain":             {Kafka{Mechanism: "plain", User: "u", Token: password}, hidden, "not a token"},
		"no token":                    {Kafka{Mechanism: "oauthbearer"}, "", "one of them"},
		"two ways to a token":         {Kafka{Mechanism: "oauthbearer", Token: password, TokenURL: "http://h"}, "", "one of them"},
		"empty token":                 {Kafka{Mechanism: "oauthbearer", Token: empty}, "", "is empty"},
		"token endpoint, no client":   {Kafka{Mechanism: "oauthbearer", TokenURL: "http://h"}, hidden, "the client ID"},
		"token endpoint, no password": {Kafka{Mechanism: "oauthbearer", TokenURL: "http://h", User: "u"}, "", "--kafka-user has no password"},
		"unknown mechanism":           {Kafka{Mechanism: "gssapi", User: "u"}, hidden, "no such mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.kafka.Options(c.password)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), hidden) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		redis   Redis
		address string
		want    string
	}{
		"certificates without TLS": {Redis{CA: pair.Cert}, "redis://u:" + hidden + "@h", "does not begin with rediss://"},
		"no address":               {Redis{CA: pair.Cert}, "h:1", "does not begin with rediss://"},
		"user without password":    {Redis{User: "u"}, "h:1", "--redis-user has no password"},
		"no URL of a cluster":      {Redis{Cluster: true}, "http://u:" + hidden + "@h", "not a redis:// URL"},
		"password and no scheme":   {Redis{Cluster: true}, "u:" + hidden + "@h", "must begin with redis://"},
		"certificate without key":  {Redis{Cert: pair.Cert}, "rediss://h", "go together"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.redis.Open(c.address, "")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), hidden) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
}

// said is the first message of a mechanism.
func said(t *testing.T, k *Kafka, password string) func() string {
	t.Helper()
	options, err := k.Options(password)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	m := cl.OptValue(kgo.SASL).([]sasl.Mechanism)[0]
	return func() string {
		t.Helper()
		_, b, err := m.Authenticate(t.Context(), "h:1")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
}

// A secret in a file may change while the process runs.
func TestSecretsAreReadAgain(t *testing.T) {
	path := file(t, "secret", "first\n")
	password := said(t, &Kafka{Mechanism: "plain", User: "u", Password: path}, "of the environment")
	token := said(t, &Kafka{Mechanism: "oauthbearer", Token: path}, "")
	for _, now := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(now+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, want := password(), "\x00u\x00"+now; got != want {
			t.Errorf("plain: %q, want %q", got, want)
		}
		if got, want := token(), "auth=Bearer "+now+"\x01"; !strings.Contains(got, want) {
			t.Errorf("oauthbearer: %q, want something with %q", got, want)
		}
	}
	if got := said(t, &Kafka{Mechanism: "plain", User: "u"}, "of the environment")(); got != "\x00u\x00of the environment" {
		t.Errorf("from the environment: %q", got)
	}
}

// Tokens of an endpoint are asked for with the client's credentials, and used
// until they expire.
func TestTokenEndpoint(t *testing.T) {
	asked := 0
	lifetime := 3600
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		user, password, _ := r.BasicAuth()
		if user != "client" || password != hidden || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "kafka" {
			t.Errorf("asked by %q with %v", user, r.Form)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "t" + string(rune('0'+asked)), "token_type": "bearer", "expires_in": lifetime})
	}))
	defer endpoint.Close()
	k := &Kafka{Mechanism: "oauthbearer", User: "client", TokenURL: endpoint.URL, TokenScope: "kafka"}
	token := said(t, k, hidden)
	for range 2 {
		if got := token(); !strings.Contains(got, "Bearer t1\x01") || asked != 1 {
			t.Errorf("%q after %d questions", got, asked)
		}
	}
	lifetime = 1 // less than the margin before its end at which a token counts as expired
	token = said(t, k, hidden)
	token()
	if got := token(); !strings.Contains(got, "Bearer t3\x01") || asked != 3 {
		t.Errorf("%q after %d questions", got, asked)
	}
}

// Servers are verified by CA and name, and a client's certificate is what its
// file has now.
func TestTLSVerifies(t *testing.T) {
	ours, others := authority(t), authority(t)
	server := issue(t, ours, "server")
	client := issue(t, ours, "first")
	files := certificates{"kafka", ours.CA, client.Cert, client.Key}
	config, err := files.config()
	if err != nil {
		t.Fatal(err)
	}
	shake := func(server testenv.Pair, config *tls.Config) (client string, err error) {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(server.Cert, server.Key)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pem, err := os.ReadFile(ours.CA)
		if err != nil {
			t.Fatal(err)
		}
		pool.AppendCertsFromPEM(pem)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		who := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				who <- err.Error()
				return
			}
			defer c.Close()
			if err := c.(*tls.Conn).Handshake(); err != nil {
				who <- err.Error()
				return
			}
			who <- c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
		}()
		c, err := tls.DialWithDialer(&net.Dialer{}, "tcp", l.Addr().String(), config)
		if err != nil {
			return "", err
		}
		defer c.Close()
		return <-who, nil
	}
	if who, err := shake(server, config); err != nil || who != "first" {
		t.Errorf("%q, %v", who, err)
	}
	next := issue(t, ours, "next")
	for from, to := range map[string]string{next.Cert: client.Cert, next.Key: client.Key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if who, err := shake(server, config); err != nil || who != "next" {
		t.Errorf("after a rotation: %q, %v", who, err)
	}
	if _, err := shake(issue(t, ours, "elsewhere", "kafka.example"), config); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("another name: %v", err)
	}
	if _, err := shake(issue(t, others, "server"), config); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another authority: %v", err)
	}
}
