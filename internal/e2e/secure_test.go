//go:build unix

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

// redisUsers is an ACL file with the users that docs/security.md gives for a
// namespace, and an all-powerful one for the test.
func redisUsers(t testing.TB, namespace string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(text), "```redis-acl\n")
	rules, _, ok := strings.Cut(rules, "```")
	if !ok || strings.Count(rules, "{live:") != 2 {
		t.Fatal("docs/security.md has no ACL of two users")
	}
	rules = strings.NewReplacer("PASSWORD", rig.Secret, "{live:", "{"+namespace+":").Replace(rules)
	path := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(path, []byte("user default on nopass ~* &* +@all\n"+rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// grant allows User:consumer what docs/security.md says it needs.
func (w *world) grant() {
	w.t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		w.t.Fatal(err)
	}
	names := map[string][]string{
		"each input": w.Topics.Inputs, "`<namespace>-journal`": {w.Topics.Journal}, "`<namespace>-rules`": {w.Topics.Rules},
		"the changes'": {w.Topics.Changes}, "the dead letters'": {w.Topics.DeadLetters},
		"`tierstream-<namespace>`": {"tierstream-" + w.Namespace}, "`<namespace>-`": {w.Namespace + "-"},
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 4 {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name, ok := names[cells[1]]
		if !ok {
			continue
		}
		rows++
		b := kadm.NewACLs().Allow("User:consumer").AllowHosts("*")
		switch cells[0] {
		case "topic":
			b.Topics(name...)
		case "group":
			b.Groups(name...)
		case "transactional ID":
			b.TransactionalIDs(name...)
		default:
			w.t.Fatalf("docs/security.md has a resource %q", cells[0])
		}
		pattern := kadm.ACLPatternLiteral
		if cells[2] == "prefixed" {
			pattern = kadm.ACLPatternPrefixed
		}
		var operations []kadm.ACLOperation
		for o := range strings.SplitSeq(cells[3], ", ") {
			operation, err := kmsg.ParseACLOperation(o)
			if err != nil {
				w.t.Fatal(err)
			}
			operations = append(operations, operation)
		}
		w.allow(b.ResourcePatternType(pattern).Operations(operations...))
	}
	if rows != len(names) {
		w.t.Fatalf("docs/security.md has %d rows of ACLs, want %d", rows, len(names))
	}
}

func (w *world) allow(rules *kadm.ACLBuilder) {
	w.t.Helper()
	created, err := w.Admin.CreateACLs(w.t.Context(), rules)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range created {
		if c.Err != nil {
			w.t.Fatal(c.Err)
		}
	}
}

// kept writes a file of the test.
func kept(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rotated is a file with a token that is valid for seconds, and replaced all
// the time.
func rotated(t testing.TB, issuer *testenv.Issuer, user string) string {
	t.Helper()
	const lifetime = 10 * time.Second
	path := kept(t, "token", "")
	renew := func() error {
		token, err := issuer.Token(user, lifetime)
		if err == nil {
			err = os.WriteFile(path+".new", []byte(token), 0o600)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		return err
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		every := time.NewTicker(lifetime / 5)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				if err := renew(); err != nil {
					ended <- err
					return
				}
			case <-ctx.Done():
				ended <- nil
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("renewing the token: %v", err)
		}
	})
	return path
}

// TestSecuredServicesSurviveKills is TestChainsSurviveKills on a Kafka with
// TLS, certificates of clients, SASL and ACLs, and a Redis with TLS,
// certificates of clients and users. Each consumer logs in by another
// mechanism; they may do what docs/security.md lists and nothing else.
func TestSecuredServicesSurviveKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, err := testenv.NewAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := testenv.NewIssuer(dir)
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Issue("client")
	if err != nil {
		t.Fatal(err)
	}
	kafka := testenv.Kafka(t, testenv.KafkaOptions{Security: &testenv.KafkaSecurity{
		Authority: ca, Issuer: issuer, Users: map[string]string{"consumer": rig.Secret, "reader": rig.Secret, "stranger": rig.Secret},
	}})
	w := newWorldOn(t, kafka, testenv.RedisOptions{
		AppendFsync: "everysec", Authority: ca,
		Config: map[string]string{"aclfile": redisUsers(t, strings.TrimRight(testenv.Prefix(t), "-"))},
	})
	w.grant()
	password, token := kept(t, "password", rig.Secret+"\n"), rotated(t, issuer, "consumer")
	redis := []string{
		"--redis=rediss://" + w.redis.TLSAddr(), "--redis-password-file=" + password,
		"--redis-ca-file=" + ca.CA, "--redis-cert-file=" + client.Cert, "--redis-key-file=" + client.Key,
	}
	brokers := []string{
		"--brokers=" + kafka.SecureAddr(), "--kafka-tls",
		"--kafka-ca-file=" + ca.CA, "--kafka-cert-file=" + client.Cert, "--kafka-key-file=" + client.Key,
	}
	user := []string{"--kafka-user=consumer", "--kafka-password-file=" + password}
	services := slices.Concat(redis, brokers)
	f := &rig.Fleet{W: w.World, Args: append(slices.Clone(services), "--redis-user=consumer")}
	f.Further = func(n int) []string {
		switch n % 4 {
		case 0:
			return append([]string{"--kafka-sasl=scram-sha-512"}, user...)
		case 1:
			return []string{"--kafka-sasl=oauthbearer", "--kafka-token-file=" + token}
		case 2:
			return append([]string{"--kafka-sasl=plain"}, user...)
		}
		return append([]string{"--kafka-sasl=scram-sha-256"}, user...)
	}
	surviveKills(w, f, 4)

	// Who reads may do so without the rights to write, and proves the rest.
	w.allow(kadm.NewACLs().Allow("User:reader").AllowHosts("*").Topics(w.Namespace).
		ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpRead, kadm.OpDescribeConfigs))
	check := append([]string{
		"check", "--namespace=" + w.Namespace, "--topics=" + strings.Join(w.Topics.Inputs, ","),
		"--changes-topic=" + w.Topics.Changes, "--dead-letters-topic=" + w.Topics.DeadLetters,
		"--redis-user=reader", "--kafka-sasl=scram-sha-512", "--kafka-user=reader", "--kafka-password-file=" + password,
	}, services...)
	if out, err := tierctl(t, check...); err != nil || strings.Contains(out, rig.Secret) {
		t.Errorf("tierctl check: %v\n%s", err, out)
	}

	// And the rights are what lets it: without them nothing starts.
	stranger := append(slices.Clone(services), "--redis-user=consumer", "--kafka-sasl=plain", "--kafka-user=stranger", "--kafka-password-file="+password)
	w.refused(stranger, "TOPIC_AUTHORIZATION_FAILED")
	reader := append(slices.Clone(services), "--redis-user=reader", "--kafka-sasl=plain", "--kafka-user=consumer", "--kafka-password-file="+password)
	c := w.Start(reader...)
	c.Said("acquiring the fence: ERR The user executing the script can't run this command", 60*time.Second)
}

// tierctl runs the command.
func tierctl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tierctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/tierstream/tierstream/cmd/tierctl").CombinedOutput(); err != nil {
		t.Fatalf("building tierctl: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// TestRedisClusterFailover: partitions lie on all three primaries of a
// cluster, one of which is killed at work. Its replica takes over, the
// partitions go on, and the whole is as one reading of the log says.
func TestRedisClusterFailover(t *testing.T) {
	t.Parallel()
	const partitions = 6
	// A namespace whose partitions lie on every primary, two at least on each.
	prefix, namespace := testenv.Prefix(t), ""
	shares := func(cluster *testenv.RedisCluster, namespace string) map[*testenv.RedisServer][]int32 {
		t.Helper()
		on := map[*testenv.RedisServer][]int32{}
		for p := range int32(partitions) {
			node, err := cluster.Primary(t.Context(), state.PartitionKeys(namespace, p).Fence())
			if err != nil {
				t.Fatal(err)
			}
			on[node] = append(on[node], p)
		}
		return on
	}
	users := map[string]string{"aclfile": redisUsers(t, prefix+"*")} // any that begins so
	cluster := testenv.Clustered(t, 3, true, testenv.RedisOptions{AppendFsync: "everysec", Config: users})
	for n := 0; namespace == ""; n++ {
		on := shares(cluster, fmt.Sprint(prefix, n))
		if len(on) == 3 && len(on[cluster.Nodes[0]]) >= 2 {
			namespace = fmt.Sprint(prefix, n)
		}
	}
	kafka := testenv.SharedKafka(t)
	addresses := strings.Join(cluster.Addrs()[:3], ",")
	w := &world{rig.New(t, rig.Config{Brokers: []string{kafka.Addr()}, Redis: addresses, Cluster: true, Namespace: namespace, Partitions: partitions}), t, kafka, nil}
	f := &rig.Fleet{W: w.World, Args: []string{
		"--redis=" + addresses, "--redis-cluster", "--redis-user=consumer", "--redis-password-file=" + kept(t, "password", rig.Secret),
	}}
	f.Start()
	f.Start()
	g := rig.Traffic(t, 41, 0.03)
	wait := w.Send(w.Take(g, 600))
	w.Progress(200)
	killed := cluster.Nodes[0]
	affected := shares(cluster, namespace)[killed]
	killed.Kill()
	wait()
	w.Send(w.Take(g, 600))()
	w.Settled(90 * time.Second)
	for _, p := range affected {
		node, err := cluster.Primary(t.Context(), state.PartitionKeys(namespace, p).Fence())
		if err != nil {
			t.Fatal(err)
		}
		if node == killed || !slices.Contains(cluster.Nodes[3:], node) {
			t.Errorf("partition %d is on %s, not on a promoted replica", p, node.Addr())
		}
	}
	// It comes back as a replica, and a consumer is killed beside it.
	if err := killed.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait = w.Send(w.Take(g, 300))
	f.Kill(f.Owner(w.AfterApply()))
	f.Start()
	wait()
	w.Settled(60 * time.Second)
	w.Check()
}
