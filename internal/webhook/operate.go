package webhook

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Aside is a look at what is set aside, for people and their commands. It needs
// no running Sender; one that runs learns of every change within moments.
type Aside struct {
	aside *aside
	stop  func()
}

// OpenAside reads the topic up to now. Close it when done.
func OpenAside(ctx context.Context, kafka []kgo.Opt, t Topics) (*Aside, error) {
	client, err := kgo.NewClient(kafka...)
	if err != nil {
		return nil, fmt.Errorf("opening a Kafka client: %w", err)
	}
	defer client.Close()
	partitions, err := checkTopics(ctx, client, t)
	if err != nil {
		return nil, err
	}
	a, err := newAside(kafka, t.Aside, partitions)
	if err != nil {
		return nil, err
	}
	a.keepParked = true
	reading, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.read(reading); err != nil {
			cancel(err)
		}
	}()
	open := &Aside{a, func() {
		cancel(nil)
		<-ended
		a.client.Close()
	}}
	if err := a.catchUp(reading, a.all()...); err != nil {
		if cause := context.Cause(reading); cause != nil && ctx.Err() == nil {
			err = cause
		}
		open.Close()
		return nil, err
	}
	return open, nil
}

// Close releases the connection.
func (a *Aside) Close() { a.stop() }

// Selection says which entries are meant; the zero value of a field means all.
type Selection struct {
	State    State
	Endpoint string
	Customer string
	IDs      []string  // webhook-ids
	Since    time.Time // of publication, inclusive
	Until    time.Time // exclusive
}

func (s *Selection) has(e *Entry) bool {
	return (s.State == "" || e.State == s.State) &&
		(s.Endpoint == "" || e.Endpoint == s.Endpoint) &&
		(s.Customer == "" || e.customer == s.Customer) &&
		(s.IDs == nil || slices.Contains(s.IDs, e.id)) &&
		(s.Since.IsZero() || !e.at.Before(s.Since)) &&
		(s.Until.IsZero() || e.at.Before(s.Until))
}

// List returns entries by endpoint, customer and sequence.
func (a *Aside) List(s Selection) (entries []*Entry) {
	a.aside.mu.Lock()
	defer a.aside.mu.Unlock()
	for _, partition := range a.aside.waiting {
		for _, e := range partition {
			if s.has(e) {
				entries = append(entries, e)
			}
		}
	}
	slices.SortFunc(entries, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.Endpoint, b.Endpoint), cmp.Compare(a.customer, b.customer), cmp.Compare(a.sequence, b.sequence))
	})
	return entries
}

// Disabled returns the disabled endpoints with the reasons.
func (a *Aside) Disabled() map[string]string {
	a.aside.mu.Lock()
	defer a.aside.mu.Unlock()
	all := map[string]string{}
	for name, reason := range a.aside.disabled {
		all[name] = reason
	}
	return all
}

// Replay lets entries be delivered again, as if they had never been tried, a
// customer's in the order of their sequence. Parked ones are meant unless the
// selection says otherwise.
func (a *Aside) Replay(ctx context.Context, s Selection) (int, error) {
	s.State = cmp.Or(s.State, Parked)
	entries := a.List(s)
	written := make(chan error, len(entries))
	for _, e := range entries {
		again := *e
		again.State, again.Attempts, again.First, again.Next, again.Reason = Waiting, 0, time.Time{}, time.Time{}, ""
		a.aside.put(&again, func(err error) { written <- err })
	}
	var errs error
	n := 0
	for range entries {
		select {
		case err := <-written:
			if err == nil {
				n++
			}
			errs = errors.Join(errs, err)
		case <-ctx.Done():
			return n, ctx.Err()
		}
	}
	return n, errs
}

// Enable lets a disabled endpoint go on where it stopped.
func (a *Aside) Enable(ctx context.Context, endpoint string) error {
	if _, off := a.aside.isDisabled(endpoint); !off {
		return fmt.Errorf("endpoint %s is not disabled", endpoint)
	}
	return a.aside.setDisabled(ctx, endpoint, "")
}

//go:embed sample.json
var sample []byte

// Sample is the body of a test: a change of nobody, with mode test.
func Sample() []byte { return slices.Clone(sample) }

// TestResult is what came of a test.
type TestResult struct {
	ID      string
	Status  int // 0 without an answer
	Took    time.Duration
	Verdict string // delivered, failed, throttled or gone
	Reason  string // of a failure
}

// Test sends the sample to an endpoint once, signed as any change.
func Test(ctx context.Context, e *Endpoint, getenv func(string) string) (TestResult, error) {
	s, err := newSender(e, getenv)
	if err != nil {
		return TestResult{}, err
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	c := change{id: "test_" + hex.EncodeToString(random[:]), customer: "webhook-test", body: sample}
	c.headers = pairs("ce_specversion", "1.0", "ce_id", c.id, "ce_source", "/tierstream/webhooks", "ce_type", "io.tierstream.tier-change.v1",
		"ce_subject", c.customer, "ce_time", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "content-type", "application/json")
	began := time.Now()
	o := s.send(ctx, &c)
	return TestResult{ID: c.id, Status: o.status, Took: time.Since(began), Verdict: o.verdict.String(), Reason: o.reason}, nil
}

// NewSecret makes a secret of 32 random bytes.
func NewSecret() string {
	var k [32]byte
	_, _ = rand.Read(k[:]) // never fails
	return FormatSecret(k[:])
}
