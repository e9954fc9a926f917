package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/tierstream/tierstream/internal/sim"
)

type generateCmd struct {
	Seed      uint64        `default:"1" help:"Seed of all chance."`
	Prefix    string        `help:"Stands before every ID. Give another one for a second run into the same topics, else its events contradict those of the first."`
	Customers float64       `default:"10000" help:"Mean number of customers who arrive within --span."`
	Span      time.Duration `default:"8760h" help:"Time over which they arrive."`
	Later     float64       `default:"1" name:"later-arrivals" help:"Rate of arrivals after --span, as a share of that within it; 0 for a closed population."`
	Start     string        `help:"Event time of the beginning, a date or RFC 3339. Default: 2025-01-01, or as --days says." placeholder:"DATE"`
	Days      float64       `help:"Begin this many days before now instead of --start." placeholder:"N"`
	Until     string        `help:"Stop when event time reaches this date." placeholder:"DATE"`
	Currency  string        `default:"EUR" help:"Base currency, ISO 4217."`
	Typical   int64         `default:"3500" name:"typical-order" help:"What the mean customer spends on an order, minor units."`
	BadRate   float64       `default:"0" help:"Bad messages per good one, 0 to 1, of every kind a consumer must refuse."`
	LiveRate  float64       `help:"From now on, speed the customers up or slow them down to about this many events per second." placeholder:"N"`

	sending
}

func (c *generateCmd) run(ctx context.Context, out output) error {
	model := sim.DefaultConfig()
	model.Seed, model.Prefix = c.Seed, c.Prefix
	model.Customers, model.Span, model.Later = c.Customers, c.Span, c.Later
	model.Currency, model.TypicalOrder, model.BadRate = c.Currency, c.Typical, c.BadRate

	now := time.Now()
	switch {
	case c.Start != "" && c.Days != 0:
		return &usageError{errors.New("--start and --days exclude each other")}
	case c.Start != "":
		start, err := parseMoment("start", c.Start)
		if err != nil {
			return err
		}
		model.Start = start
	case c.Days > 0:
		model.Start = now.Add(-time.Duration(c.Days * 24 * float64(time.Hour)))
	case c.Days < 0:
		return &usageError{errors.New("--days must be more than 0")}
	}
	if err := model.Validate(); err != nil {
		return &usageError{err}
	}
	if c.LiveRate != 0 {
		var err error
		if model, err = model.LiveFrom(now, c.LiveRate); err != nil {
			return &usageError{err}
		}
	}
	g, err := sim.New(model)
	if err != nil {
		return err
	}
	messages := g.All()
	if c.Until != "" {
		until, err := parseMoment("until", c.Until)
		if err != nil {
			return err
		}
		messages = before(until, messages)
	}
	if c.DryRun && c.Events == 0 && c.Until == "" {
		return &usageError{errors.New("--dry-run has no end of its own: give --events or --until")}
	}
	return c.send(ctx, out, messages)
}

// before is the messages that reach the log before a moment.
func before(until time.Time, messages iter.Seq[sim.Message]) iter.Seq[sim.Message] {
	end := until.UnixMilli()
	return func(yield func(sim.Message) bool) {
		for m := range messages {
			if m.At >= end || !yield(m) {
				return
			}
		}
	}
}

type cdnowCmd struct {
	File string `arg:"" type:"existingfile" help:"CDNOW_master.txt or CDNOW_sample.txt."`
	Zone string `default:"UTC" help:"IANA zone in which a purchase is at 12:00 of its date."`

	sending
}

func (c *cdnowCmd) run(ctx context.Context, out output) error {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return &usageError{fmt.Errorf("--zone: %w", err)}
	}
	messages, err := sim.ReadCDNOW(c.File, zone)
	if err != nil {
		return err
	}
	// The file has purchases only, so one topic is enough.
	c.only = []sim.Topic{sim.Purchases}
	return c.send(ctx, out, slices.Values(messages))
}
