package testenv

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
}

// KafkaServer is one broker in KRaft mode that is its own controller. Topics
// are not created by use. Its methods may be called from any goroutine.
type KafkaServer struct{ service }

// StartKafka starts a broker and returns when it answers. Of ctx only the
// start depends, not the life of the broker. The caller must call Stop. The
// first start on a machine fetches the broker with Maven. The error is a
// *[MissingError] when the machine lacks a program.
func StartKafka(ctx context.Context, options KafkaOptions) (_ *KafkaServer, err error) {
	java, err := program("java", "a Java runtime, version 17 or later")
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars(ctx)
	if err != nil {
		return nil, err
	}
	k := &KafkaServer{service{name: "Kafka"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.Stop())
		}
	}()
	if err := k.place(options.Dir, 2); err != nil {
		return nil, err
	}

	broker, controller := k.ports[0].addr(), k.ports[1].addr()
	properties := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  "1",
		"controller.quorum.voters":                 "1@" + controller,
		"listeners":                                "PLAINTEXT://" + broker + ",CONTROLLER://" + controller,
		"advertised.listeners":                     "PLAINTEXT://" + broker,
		"controller.listener.names":                "CONTROLLER",
		"log.dirs":                                 filepath.Join(k.dir, "data"),
		"auto.create.topics.enable":                "false",
		"offsets.topic.replication.factor":         "1",
		"offsets.topic.num.partitions":             "4",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
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
	maps.Copy(properties, options.Properties)
	file := filepath.Join(k.dir, "server.properties")
	if err := os.WriteFile(file, formatProperties(properties), 0o644); err != nil {
		return nil, err
	}

	heap := options.Heap
	if heap == "" {
		heap = "512m"
	}
	arguments := []string{"-Xmx" + heap, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(jars, "*")}
	if !options.Throughput {
		arguments = append([]string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"}, arguments...)
	}
	if _, err := os.Stat(filepath.Join(k.dir, "data", "meta.properties")); errors.Is(err, os.ErrNotExist) {
		if _, err := KafkaTool(ctx, "kafka.tools.StorageTool", "format", "-t", clusterID(), "-c", file); err != nil {
			return nil, err
		}
	}
	k.command = func() *exec.Cmd {
		return exec.Command(java, append(slices.Clone(arguments), "kafka.Kafka", file)...)
	}
	k.ready = k.answers
	if err := k.start(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// answers asks the broker for its metadata: it is ready when it knows itself
// and the controller.
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
	if len(metadata.Brokers) == 0 || metadata.Controller < 0 {
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
	java, err := program("java", "a Java runtime, version 17 or later")
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars(ctx)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, java, append([]string{
		"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(jars, "*"), class}, arguments...)...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("running %s: %w\n%s%s", class, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

//go:embed kafka/pom.xml
var kafkaPOM []byte

// kafkaJars returns the folder with the broker's jars, fetching them with
// Maven when this user has not got them yet. Processes that come at the same
// time wait for the one that fetches.
func kafkaJars(ctx context.Context) (string, error) {
	var pom struct {
		Version string `xml:"properties>kafka.version"`
	}
	if err := xml.Unmarshal(kafkaPOM, &pom); err != nil {
		return "", fmt.Errorf("reading pom.xml: %w", err)
	}
	cache, err := cacheDir("")
	if err != nil {
		return "", err
	}
	jars := filepath.Join(cache, "kafka-"+pom.Version)
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	}

	mvn, err := program("mvn", "Maven")
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, jars+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(jars); err == nil { // another process was first
		return jars, nil
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	file := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(file, kafkaPOM, 0o644); err != nil {
		return "", err
	}
	fetched := filepath.Join(work, "jars")
	command := exec.CommandContext(ctx, mvn, "-q", "-B", "-f", file, "dependency:copy-dependencies",
		"-DoutputDirectory="+fetched, "-DincludeScope=runtime")
	if output, err := command.CombinedOutput(); err != nil {
		return "", &MissingError{
			What:  "Kafka " + pom.Version + " (Maven could not fetch it)",
			Cause: fmt.Errorf("%w\n%s", err, output),
		}
	}
	// The folder appears whole or not at all.
	return jars, os.Rename(fetched, jars)
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
