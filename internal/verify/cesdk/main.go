// Command cesdk reads tier changes, Kafka records as JSON lines, and prints what
// the official CloudEvents SDK makes of them, one line each: ID, source, type,
// subject, time, content type and the extension customerseq, then customer,
// sequence and tier from the data, with tabs between.
//
// It exists to check that our messages are CloudEvents for others too, and is a
// module of its own because the program itself does not need the SDK.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
)

// record is one Kafka record. Bytes are base 64.
type record struct {
	Key     []byte   `json:"key"`
	Value   []byte   `json:"value"`
	Headers []header `json:"headers"`
}

type header struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cesdk:", err)
		os.Exit(1)
	}
}

func run(stdin io.Reader, stdout io.Writer) error {
	in := json.NewDecoder(bufio.NewReader(stdin))
	out := bufio.NewWriter(stdout)
	for n := 0; ; n++ {
		var r record
		if err := in.Decode(&r); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return fmt.Errorf("reading record %d: %w", n, err)
		}
		line, err := parse(&r)
		if err != nil {
			return fmt.Errorf("record %d (key %q): %w", n, r.Key, err)
		}
		if _, err := fmt.Fprintln(out, line); err != nil {
			return err
		}
	}
}

// parse reads a record by the SDK's Kafka binding and validates the event.
func parse(r *record) (string, error) {
	m := &sarama.ConsumerMessage{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	message := kafka_sarama.NewMessageFromConsumerMessage(m)
	if message.ReadEncoding() != binding.EncodingBinary {
		return "", fmt.Errorf("encoding %s: want binary", message.ReadEncoding())
	}
	e, err := binding.ToEvent(context.Background(), message)
	if err != nil {
		return "", err
	}
	if err := e.Validate(); err != nil {
		return "", err
	}
	var data struct {
		Customer string `json:"customer_id"`
		Sequence int    `json:"sequence"`
		New      struct {
			ID string `json:"id"`
		} `json:"new_tier"`
	}
	if err := e.DataAs(&data); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s", e.ID(), e.Source(), e.Type(), e.Subject(),
		e.Time().UTC().Format("2006-01-02T15:04:05.000Z"), e.DataContentType(), e.Extensions()["customerseq"],
		data.Customer, data.Sequence, data.New.ID), nil
}
