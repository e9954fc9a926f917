package testenv

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaSecurity gives a broker a second listener, SASL_SSL, beside the plain
// one. Clients must show a certificate of the authority and log in: by PLAIN,
// SCRAM-SHA-256 or SCRAM-SHA-512 as one of the users, or by OAUTHBEARER with a
// token of the issuer. They may do what ACLs allow them, which is nothing at
// first; whoever comes by the plain listener may do everything.
type KafkaSecurity struct {
	Authority *Authority
	Users     map[string]string // passwords by name
	Issuer    *Issuer
}

// SecureAddr is the address of the listener of [KafkaSecurity].
func (k *KafkaServer) SecureAddr() string { return k.ports[2].addr() }

// secure adds the listener to a broker's properties.
func (s *KafkaSecurity) secure(k *KafkaServer, properties map[string]string) error {
	const listener = "listener.name.sasl_ssl."
	pair, err := s.Authority.Issue("kafka")
	if err != nil {
		return err
	}
	for _, name := range []string{"listeners", "advertised.listeners"} {
		properties[name] += ",SASL_SSL://" + k.SecureAddr()
	}
	accounts := ""
	for _, user := range slices.Sorted(maps.Keys(s.Users)) {
		accounts += fmt.Sprintf(" user_%s=%q", user, s.Users[user])
	}
	maps.Copy(properties, map[string]string{
		"listener.security.protocol.map":     "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
		listener + "ssl.keystore.type":       "PEM",
		listener + "ssl.keystore.location":   pair.Both,
		listener + "ssl.truststore.type":     "PEM",
		listener + "ssl.truststore.location": s.Authority.CA,
		listener + "ssl.client.auth":         "required",
		listener + "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",

		listener + "plain.sasl.jaas.config":                         "org.apache.kafka.common.security.plain.PlainLoginModule required" + accounts + ";",
		listener + "scram-sha-256.sasl.jaas.config":                 "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		listener + "scram-sha-512.sasl.jaas.config":                 "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		listener + "oauthbearer.sasl.jaas.config":                   "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
		listener + "oauthbearer.sasl.server.callback.handler.class": "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
		"sasl.oauthbearer.jwks.endpoint.url":                        s.Issuer.keySet(),
		"sasl.oauthbearer.expected.audience":                        audience,
		// Sessions end soon, so that tests see clients log in again (KIP-368).
		listener + "connections.max.reauth.ms": "5000",

		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":           "User:ANONYMOUS",
	})
	return nil
}

// flags let the Java machine read the issuer's keys.
func (s *KafkaSecurity) flags() []string {
	return []string{"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + s.Issuer.keySet()}
}

// enrol gives the users their passwords for SCRAM, which the cluster keeps.
func (s *KafkaSecurity) enrol(ctx context.Context, k *KafkaServer) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()))
	if err != nil {
		return err
	}
	defer client.Close()
	// A user may occur once in a request.
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		var users []kadm.UpsertSCRAM
		for name, password := range s.Users {
			users = append(users, kadm.UpsertSCRAM{User: name, Mechanism: mechanism, Iterations: 4096, Password: password})
		}
		altered, err := kadm.NewClient(client).AlterUserSCRAMs(ctx, nil, users)
		if err == nil {
			err = altered.Error()
		}
		if err != nil {
			return fmt.Errorf("adding users: %w", err)
		}
	}
	return nil
}

const audience = "kafka"

// Issuer signs tokens for OAUTHBEARER, as an identity provider does.
type Issuer struct {
	dir string
	key *rsa.PrivateKey
}

// NewIssuer makes an issuer that publishes its key in a folder, which must
// exist.
func NewIssuer(dir string) (*Issuer, error) {
	i := &Issuer{dir: dir}
	var err error
	if i.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	set, err := json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1",
		"n": encode(i.key.N.Bytes()), "e": encode(big.NewInt(int64(i.key.E)).Bytes()),
	}}})
	if err != nil {
		return nil, err
	}
	return i, os.WriteFile(i.path(), set, 0o644)
}

func (i *Issuer) path() string { return filepath.Join(i.dir, "jwks.json") }

// keySet is the URL of the public key (RFC 7517).
func (i *Issuer) keySet() string { return "file://" + i.path() }

// Token is a signed JWT (RFC 7519) that says who its bearer is.
func (i *Issuer) Token(user string, lifetime time.Duration) (string, error) {
	now := time.Now()
	parts := make([]string, 0, 3)
	for _, part := range []any{
		map[string]string{"alg": "RS256", "typ": "JWT", "kid": "1"},
		map[string]any{"sub": user, "aud": audience, "iat": now.Unix(), "exp": now.Add(lifetime).Unix()},
	} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, encode(b))
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, ".")))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return strings.Join(append(parts, encode(signature)), "."), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
