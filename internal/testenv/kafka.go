package testenv

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaOptions is what may differ between brokers. The zero value is right for
// tests.
type KafkaOptions struct {
	// Dir keeps the data; "" is a temporary folder, removed by Stop.
	Dir string
	// Heap is the largest heap of the Java machine, "512m" when empty.
	Heap string
	// Throughput lets the Java machine compile for speed, as a broker in
	// production does. Without it the broker starts sooner and uses less of
	// the processor.
	Throughput bool
	// Properties are added to server.properties and override the defaults.
	Properties map[string]string
	// Security adds a listener with TLS and SASL; nil: none.
	Security *KafkaSecurity
}

// portsPerBroker is how many ports a broker with these options needs: of the
// plain listener, the controller, and the secure listener.
func (o *KafkaOptions) portsPerBroker() int {
	if o.Security != nil {
		return 3
	}
	return 2
}

// KafkaServer is one broker in KRaft mode that is its own controller. Topics
// are not created by use. Its methods may be called from any goroutine.
type KafkaServer struct {
	service
	brokers int // of its cluster
}

// StartKafka starts a broker and returns when it answers. Of ctx only the
// start depends, not the life of the broker. The caller must call Stop. The
// first start on a machine fetches the broker with Maven, which takes a
// minute. The error is a *[MissingError] when the machine lacks a program.
func StartKafka(ctx context.Context, options KafkaOptions) (*KafkaServer, error) {
	kafka, err := installKafka(ctx)
	if err != nil {
		return nil, err
	}
	return kafka.start(ctx, options)
}

// start is StartKafka with further flags of the Java machine.
func (i *installation) start(ctx context.Context, options KafkaOptions, flags ...string) (_ *KafkaServer, err error) {
	k := &KafkaServer{service: service{name: "Kafka"}, brokers: 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Stop())
		}
	}()
	if err := k.place(options.Dir, options.portsPerBroker()); err != nil {
		return nil, err
	}
	if err := i.configure(k, 1, kafkaID(), "1@"+k.ports[1].addr(), options, flags...); err != nil {
		return nil, err
	}
	if err := k.start(ctx); err != nil {
		return nil, err
	}
	if options.Security != nil {
		if err := options.Security.enrol(ctx, k); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// configure writes a broker's properties, formats its folder and says how it
// starts. Voters are the controllers of its cluster, as
// controller.quorum.voters wants them.
func (i *installation) configure(k *KafkaServer, node int, cluster, voters string, options KafkaOptions, flags ...string) error {
	broker, controller := k.ports[0].addr(), k.ports[1].addr()
	replicas, inSync := strconv.Itoa(k.brokers), strconv.Itoa(k.brokers/2+1)
	properties := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  strconv.Itoa(node),
		"controller.quorum.voters":                 voters,
		"listeners":                                "PLAINTEXT://" + broker + ",CONTROLLER://" + controller,
		"advertised.listeners":                     "PLAINTEXT://" + broker,
		"controller.listener.names":                "CONTROLLER",
		"log.dirs":                                 filepath.Join(k.dir, "data"),
		"auto.create.topics.enable":                "false",
		"min.insync.replicas":                      inSync,
		"offsets.topic.replication.factor":         replicas,
		"offsets.topic.num.partitions":             "4",
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            inSync,
		"transaction.state.log.num.partitions":     "4",
		// A broker that was killed is let in again only when its last session
		// has ended, nine seconds by default.
		"broker.session.timeout.ms":    "2000",
		"broker.heartbeat.interval.ms": "500",
		// Tests of a lost owner should not wait for the six seconds below
		// which a broker otherwise allows no session.
		"group.min.session.timeout.ms":     "500",
		"group.initial.rebalance.delay.ms": "0",
	}
	if options.Security != nil {
		if err := options.Security.secure(k, properties); err != nil {
			return err
		}
		flags = append(flags, options.Security.flags()...)
	}
	maps.Copy(properties, options.Properties)
	file := filepath.Join(k.dir, "server.properties")
	if err := os.WriteFile(file, formatProperties(properties), 0o644); err != nil {
		return err
	}
	if err := i.format(filepath.Join(k.dir, "data"), node, cluster); err != nil {
		return err
	}
	heap := options.Heap
	if heap == "" {
		heap = "512m"
	}
	if !options.Throughput {
		flags = append(flags, soonReady...)
	}
	flags = append(flags, "-Xmx"+heap)
	k.command = func() *exec.Cmd { return exec.Command(i.java, i.arguments(flags, "kafka.Kafka", file)...) }
	k.ready = k.answers
	return nil
}

// answers asks the broker for its metadata: it is ready when it knows itself,
// a majority of its cluster and the controller.
func (k *KafkaServer) answers(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	metadata, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if len(metadata.Brokers) < k.brokers/2+1 || metadata.Controller < 0 {
		return errors.New("the broker has not joined its cluster yet")
	}
	return nil
}

// CreateTopic creates a topic. Configs are topic settings such as
// "cleanup.policy"; nil leaves the broker's defaults.
func (k *KafkaServer) CreateTopic(tb testing.TB, topic string, partitions int32, configs map[string]string) {
	tb.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()))
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	settings := make(map[string]*string, len(configs))
	for key, value := range configs {
		settings[key] = &value
	}
	if _, err := kadm.NewClient(client).CreateTopic(tb.Context(), partitions, 1, settings, topic); err != nil {
		tb.Fatalf("creating topic %s: %v", topic, err)
	}
}

// KafkaTool runs one of Kafka's own command-line classes, for example
// "org.apache.kafka.tools.consumer.ConsoleConsumer" or
// "org.apache.kafka.tools.GetOffsetShell", and returns what it printed. What
// it logged is part of the error. It ends with ctx.
func KafkaTool(ctx context.Context, class string, arguments ...string) ([]byte, error) {
	kafka, err := installKafka(ctx)
	if err != nil {
		return nil, err
	}
	return kafka.tool(ctx, class, arguments...)
}

// KafkaLibs is the folder with the jars of the broker, which include those of
// the Java client. The error is a *[MissingError] when the machine lacks a
// program.
func KafkaLibs(ctx context.Context) (string, error) {
	kafka, err := installKafka(ctx)
	if err != nil {
		return "", err
	}
	return filepath.Join(kafka.home, "libs"), nil
}

// installation is a folder with what a broker needs.
type installation struct {
	java string // path of the program
	home string // libs/, formatted/, classes.jsa
}

// soonReady are flags for a Java machine that lives for seconds.
var soonReady = []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}

// arguments are those of java for one of Kafka's classes. The archive of
// loaded classes halves the work of a start; Java ignores another Java's.
func (i *installation) arguments(flags []string, class string, arguments ...string) []string {
	if _, err := os.Stat(i.archive()); err == nil {
		flags = append(slices.Clip(flags), "-XX:SharedArchiveFile="+i.archive())
	}
	return slices.Concat(flags, []string{
		"-Xlog:disable", "-Xlog:all=error:stderr", // else warnings about the archive go to stdout
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", showMarkers,
		"-cp", filepath.Join(i.home, "libs", "*"), class}, arguments)
}

func (i *installation) archive() string { return filepath.Join(i.home, "classes.jsa") }

func (i *installation) tool(ctx context.Context, class string, arguments ...string) ([]byte, error) {
	flags := append(slices.Clone(soonReady), "-Xmx256m")
	command := exec.CommandContext(ctx, i.java, i.arguments(flags, class, arguments...)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("running %s: %w\n%s%s", class, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// format makes the folder that of a broker in the given cluster, unless it is
// that of a broker already. It does what StorageTool does, without the second that
// a Java machine takes: the features of the version are copied, the
// identities are new.
func (i *installation) format(data string, node int, cluster string) error {
	meta := filepath.Join(data, "meta.properties")
	if _, err := os.Stat(meta); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.CopyFS(data, os.DirFS(filepath.Join(i.home, "formatted"))); err != nil {
		return fmt.Errorf("formatting %s: %w", data, err)
	}
	return os.WriteFile(meta, formatProperties(map[string]string{
		"version": "1", "node.id": strconv.Itoa(node), "cluster.id": cluster, "directory.id": kafkaID()}), 0o644)
}

//go:embed kafka/pom.xml
var kafkaPOM []byte

// installKafka returns this user's installation, which it makes when there is
// none. Processes that come at the same time wait for the one that makes it.
func installKafka(ctx context.Context) (*installation, error) {
	var pom struct {
		Version string `xml:"properties>kafka.version"`
	}
	if err := xml.Unmarshal(kafkaPOM, &pom); err != nil {
		return nil, fmt.Errorf("reading pom.xml: %w", err)
	}
	java, err := program("java", "a Java runtime, version 17 or later,")
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir("")
	if err != nil {
		return nil, err
	}
	i := &installation{java: java, home: filepath.Join(cache, "kafka-"+pom.Version)}
	complete := filepath.Join(i.home, "complete") // the last file that is written
	if _, err := os.Stat(complete); err == nil {
		return i, nil
	}
	unlock, err := lock(ctx, i.home+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Stat(complete); err == nil { // another process was first
		return i, nil
	}
	if err := i.fetch(ctx, pom.Version); err != nil {
		return nil, err
	}
	if err := i.prepare(ctx); err != nil {
		return nil, fmt.Errorf("preparing Kafka: %w", err)
	}
	return i, os.WriteFile(complete, nil, 0o644)
}

// fetch fills libs/ with Maven.
func (i *installation) fetch(ctx context.Context, version string) error {
	mvn, err := program("mvn", "Maven (mvn)")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(i.home); err != nil { // what an interrupted process left
		return err
	}
	if err := os.MkdirAll(i.home, 0o755); err != nil {
		return err
	}
	file := filepath.Join(i.home, "pom.xml")
	if err := os.WriteFile(file, kafkaPOM, 0o644); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, mvn, "-q", "-B", "-f", file, "dependency:copy-dependencies",
		"-DoutputDirectory="+filepath.Join(i.home, "libs"), "-DincludeScope=runtime")
	if output, err := command.CombinedOutput(); err != nil {
		return &MissingError{
			What:  "Kafka " + version + ", which Maven could not fetch",
			Cause: fmt.Errorf("%w\n%s", err, output),
		}
	}
	return nil
}

// prepare makes formatted/, the empty data folder of this version without its
// identities, and the archive of the classes that a broker loads.
func (i *installation) prepare(ctx context.Context) error {
	file := filepath.Join(i.home, "format.properties")
	formatted := filepath.Join(i.home, "formatted")
	if err := os.WriteFile(file, formatProperties(map[string]string{
		"process.roles":             "broker,controller",
		"node.id":                   "1",
		"controller.quorum.voters":  "1@127.0.0.1:1", // not part of the result, nor is the next
		"listeners":                 "PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1",
		"controller.listener.names": "CONTROLLER",
		"log.dirs":                  formatted,
	}), 0o644); err != nil {
		return err
	}
	if _, err := i.tool(ctx, "kafka.tools.StorageTool", "format", "-t", kafkaID(), "-c", file); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(formatted, "meta.properties")); err != nil {
		return err
	}

	making := i.archive() + ".new"
	k, err := i.start(ctx, KafkaOptions{}, "-XX:ArchiveClassesAtExit="+making)
	if err != nil {
		// A Java that cannot write archives works without one. Whatever else
		// was wrong, the next start says.
		return ctx.Err()
	}
	err = errors.Join(k.process.stop(), k.Stop())
	if renamed := os.Rename(making, i.archive()); !errors.Is(renamed, os.ErrNotExist) {
		err = errors.Join(err, renamed)
	}
	return err
}

// formatProperties writes a Java properties file in the order of the keys.
func formatProperties(properties map[string]string) []byte {
	var b bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		// A backslash escapes in this format.
		fmt.Fprintf(&b, "%s=%s\n", key, strings.ReplaceAll(properties[key], `\`, `\\`))
	}
	return b.Bytes()
}

// kafkaID is a random UUID as Kafka writes one: 16 bytes in URL-safe base 64.
func kafkaID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // no leading '-', which would read as an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}
