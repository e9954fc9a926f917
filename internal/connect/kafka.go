package connect

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// KafkaPassword is the setting without a flag: its variable has the password
// where there is no file.
const KafkaPassword = "kafka-password"

// Kafka is the flags that say how brokers are spoken to. The zero value is
// plain text without authentication.
type Kafka struct {
	TLS        bool   `name:"kafka-tls" help:"Speak TLS with the brokers. Their certificates and names are verified."`
	CA         string `name:"kafka-ca-file" help:"Certificates that sign the brokers', PEM. Default: the system's." type:"existingfile" placeholder:"FILE"`
	Cert       string `name:"kafka-cert-file" help:"Our certificate for mutual TLS, PEM; read again at each connection." type:"existingfile" placeholder:"FILE"`
	Key        string `name:"kafka-key-file" help:"Its private key, PEM." type:"existingfile" placeholder:"FILE"`
	Mechanism  string `name:"kafka-sasl" help:"SASL mechanism: plain, scram-sha-256, scram-sha-512 or oauthbearer." enum:"plain,scram-sha-256,scram-sha-512,oauthbearer," default:"" placeholder:"MECHANISM"`
	User       string `name:"kafka-user" help:"User of plain and scram; with --kafka-token-url the client ID." placeholder:"NAME"`
	Password   string `name:"kafka-password-file" help:"File with the user's password or the client's secret; read again at each authentication. Without it the variable KAFKA_PASSWORD, with the prefix of the others." type:"existingfile" placeholder:"FILE"`
	Token      string `name:"kafka-token-file" help:"File with the token of oauthbearer; read again at each authentication." type:"existingfile" placeholder:"FILE"`
	TokenURL   string `name:"kafka-token-url" help:"Where oauthbearer gets tokens instead, by the client credentials grant (RFC 6749, 4.4)." placeholder:"URL"`
	TokenScope string `name:"kafka-token-scope" help:"Scope that is asked for there." placeholder:"SCOPE"`
}

// Options are those of every client of these brokers. password is what the
// environment says, and used when no file is given.
func (k *Kafka) Options(password string) ([]kgo.Opt, error) {
	var options []kgo.Opt
	files := certificates{"kafka", k.CA, k.Cert, k.Key}
	switch {
	case k.TLS:
		config, err := files.config()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(config))
	case files.given():
		return nil, errors.New("Kafka's certificates are given, but not --kafka-tls")
	}
	mechanism, err := k.mechanism(secret{k.Password, password})
	if err != nil {
		return nil, err
	}
	if mechanism != nil {
		options = append(options, kgo.SASL(mechanism))
	}
	return options, nil
}

// mechanism is that of --kafka-sasl; nil: none.
func (k *Kafka) mechanism(password secret) (sasl.Mechanism, error) {
	switch k.Mechanism {
	case "":
		if k.User != "" || k.Password != "" || k.Token != "" || k.TokenURL != "" {
			return nil, errors.New("a user, password or token for Kafka is given, but not --kafka-sasl")
		}
		return nil, nil
	case "oauthbearer":
		return k.oauth(password)
	}
	if k.Token != "" || k.TokenURL != "" {
		return nil, fmt.Errorf("--kafka-sasl %s takes a user and a password, not a token", k.Mechanism)
	}
	if k.User == "" {
		return nil, fmt.Errorf("--kafka-sasl %s needs --kafka-user", k.Mechanism)
	}
	if now, err := password.read(); err != nil {
		return nil, fmt.Errorf("--kafka-password-file: %w", err)
	} else if now == "" {
		return nil, errNoPassword("kafka")
	}
	as := func(context.Context) (scram.Auth, error) {
		now, err := password.read()
		return scram.Auth{User: k.User, Pass: now}, err
	}
	switch k.Mechanism {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			now, err := password.read()
			return plain.Auth{User: k.User, Pass: now}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(as), nil
	case "scram-sha-512":
		return scram.Sha512(as), nil
	}
	return nil, fmt.Errorf("--kafka-sasl %s: no such mechanism", k.Mechanism)
}

// oauth takes tokens from a file or an endpoint. Those of an endpoint are kept
// until shortly before they expire; the client authenticates again when the
// broker says so (KIP-368).
func (k *Kafka) oauth(password secret) (sasl.Mechanism, error) {
	switch {
	case (k.Token == "") == (k.TokenURL == ""):
		return nil, errors.New("--kafka-sasl oauthbearer needs --kafka-token-file or --kafka-token-url, one of them")
	case k.Token != "":
		token := secret{file: k.Token}
		if _, err := token.read(); err != nil {
			return nil, fmt.Errorf("--kafka-token-file: %w", err)
		}
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			now, err := token.read()
			return oauth.Auth{Token: now}, err
		}), nil
	case k.User == "":
		return nil, errors.New("--kafka-token-url needs --kafka-user, the client ID")
	}
	if now, err := password.read(); err != nil {
		return nil, fmt.Errorf("--kafka-password-file: %w", err)
	} else if now == "" {
		return nil, errNoPassword("kafka")
	}
	tokens := oauth2.ReuseTokenSource(nil, tokenSource(func() (*oauth2.Token, error) {
		now, err := password.read()
		if err != nil {
			return nil, err
		}
		grant := clientcredentials.Config{ClientID: k.User, ClientSecret: now, TokenURL: k.TokenURL}
		if k.TokenScope != "" {
			grant.Scopes = []string{k.TokenScope}
		}
		token, err := grant.Token(context.Background())
		if err != nil {
			return nil, fmt.Errorf("asking for a token: %w", err)
		}
		return token, nil
	}))
	return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := tokens.Token()
		if err != nil {
			return oauth.Auth{}, err
		}
		return oauth.Auth{Token: token.AccessToken}, nil
	}), nil
}

// tokenSource is a function as an [oauth2.TokenSource].
type tokenSource func() (*oauth2.Token, error)

func (f tokenSource) Token() (*oauth2.Token, error) { return f() }
