package connect

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// Every mechanism logs in to a real broker, and none does with a wrong secret.
func TestKafkaMechanisms(t *testing.T) {
	ca := authority(t)
	issuer, err := testenv.NewIssuer(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	broker := testenv.Kafka(t, testenv.KafkaOptions{Security: &testenv.KafkaSecurity{Authority: ca, Issuer: issuer, Users: map[string]string{"alice": hidden}}})
	client := issue(t, ca, "client")
	token := func(user string, lifetime time.Duration) string {
		t.Helper()
		text, err := issuer.Token(user, lifetime)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, "token", text)
	}
	password, wrong := file(t, "password", hidden), file(t, "wrong", "not-"+hidden)
	topics := func(k Kafka) error {
		t.Helper()
		k.TLS, k.CA, k.Cert, k.Key = true, ca.CA, client.Cert, client.Key
		options, err := k.Options("")
		if err != nil {
			t.Fatal(err)
		}
		cl, err := kgo.NewClient(append(options, kgo.SeedBrokers(broker.SecureAddr()), kgo.RequestRetries(0))...)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		_, err = kadm.NewClient(cl).ListTopics(t.Context())
		return err
	}
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		if err := topics(Kafka{Mechanism: mechanism, User: "alice", Password: password}); err != nil {
			t.Errorf("%s: %v", mechanism, err)
		}
		if err := topics(Kafka{Mechanism: mechanism, User: "alice", Password: wrong}); err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%s with a wrong password: %v", mechanism, err)
		}
	}
	if err := topics(Kafka{Mechanism: "oauthbearer", Token: token("alice", time.Hour)}); err != nil {
		t.Errorf("oauthbearer: %v", err)
	}
	expired := token("alice", -time.Hour)
	if err := topics(Kafka{Mechanism: "oauthbearer", Token: expired}); err == nil {
		t.Error("oauthbearer with an expired token: no error")
	}
	if err := topics(Kafka{}); err == nil {
		t.Error("nobody: no error")
	}
}

// Redis with TLS, certificates of clients, and a user whose password changes.
func TestRedisWithTLSAndUsers(t *testing.T) {
	ca := authority(t)
	client := issue(t, ca, "client")
	users := filepath.Join(t.TempDir(), "users.acl")
	allow := func(password string) {
		t.Helper()
		if err := os.WriteFile(users, []byte("user default on nopass ~* &* +@all\nuser alice on >"+password+" ~* &* +@all\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	allow(hidden)
	server := testenv.Redis(t, testenv.RedisOptions{Authority: ca, Config: map[string]string{"aclfile": users}})
	password := file(t, "password", hidden+"\n")
	reach := func(r Redis, address, password string) error {
		t.Helper()
		rdb, err := r.Open(address, password)
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		return state.Reach(t.Context(), rdb, address)
	}
	r := Redis{User: "alice", Password: password, CA: ca.CA, Cert: client.Cert, Key: client.Key}
	if err := reach(r, "rediss://"+server.TLSAddr(), ""); err != nil {
		t.Error(err)
	}
	fromEnvironment := Redis{CA: ca.CA, Cert: client.Cert, Key: client.Key}
	if err := reach(fromEnvironment, "rediss://alice@"+server.TLSAddr(), hidden); err != nil {
		t.Errorf("user of the address, password of the environment: %v", err)
	}
	if err := reach(Redis{CA: ca.CA}, "rediss://"+server.TLSAddr(), ""); err == nil {
		t.Error("without a certificate: no error")
	}
	if err := reach(Redis{CA: authority(t).CA, Cert: client.Cert, Key: client.Key}, "rediss://"+server.TLSAddr(), ""); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("another authority: %v", err)
	}
	// The client lives on while the password changes: new connections log in
	// with what the file has then.
	rdb, err := r.Open("rediss://"+server.TLSAddr(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	allow("other-" + hidden)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := state.Reach(t.Context(), rdb, server.TLSAddr()); err == nil || strings.Contains(err.Error(), hidden) {
		t.Errorf("with the old password: %v", err)
	}
	if err := os.WriteFile(password, []byte("other-"+hidden), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := state.Reach(t.Context(), rdb, server.TLSAddr()); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}
