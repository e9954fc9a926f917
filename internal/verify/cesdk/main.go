// Command cesdk reads Kafka records as JSON lines and prints what the official
// CloudEvents SDK makes of them, one JSON line each. It exists to check that
// our messages are CloudEvents for others too, and is a module of its own
// because the program itself does not need the SDK.
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

// parsed is what the SDK read.
type parsed struct {
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            string          `json:"time"` // RFC 3339 with milliseconds
	DataContentType string          `json:"datacontenttype"`
	Extensions      map[string]any  `json:"extensions"`
	Data            json.RawMessage `json:"data"`
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
	encoder := json.NewEncoder(out)
	for n := 0; ; n++ {
		var r record
		if err := in.Decode(&r); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return fmt.Errorf("reading record %d: %w", n, err)
		}
		p, err := parse(&r)
		if err != nil {
			return fmt.Errorf("record %d (key %q): %w", n, r.Key, err)
		}
		if err := encoder.Encode(p); err != nil {
			return err
		}
	}
}

// parse reads a record by the SDK's Kafka binding and validates the event.
func parse(r *record) (*parsed, error) {
	m := &sarama.ConsumerMessage{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	message := kafka_sarama.NewMessageFromConsumerMessage(m)
	if message.ReadEncoding() != binding.EncodingBinary {
		return nil, fmt.Errorf("encoding %s: want binary", message.ReadEncoding())
	}
	e, err := binding.ToEvent(context.Background(), message)
	if err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	p := &parsed{
		ID: e.ID(), Source: e.Source(), Type: e.Type(), Subject: e.Subject(),
		Time: e.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"), DataContentType: e.DataContentType(), Extensions: e.Extensions(),
	}
	return p, e.DataAs(&p.Data)
}
