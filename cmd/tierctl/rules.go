package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

type rulesCmd struct {
	List rulesListCmd `cmd:"" help:"List the rules that the journal may name, oldest first."`
	Show rulesShowCmd `cmd:"" help:"Print one set of rules with its model."`
}

type rulesListCmd struct{}

func (c *rulesListCmd) Help() string {
	return `Rules are the model and every setting that decides an outcome. Each batch in the journal names the hash of its rules.

  tierctl rules list`
}

func (c *rulesListCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	for _, h := range s.rules.hashes {
		at := s.rules.at[h].UTC().Format(time.RFC3339)
		r, err := fold.ParseRules(s.rules.raw[h])
		if err != nil {
			fmt.Fprintf(t.out, "%.12s  %s  not readable: %v\n", h, at, err)
			continue
		}
		fmt.Fprintf(t.out, "%.12s  %s  model %s (%s)  clock %s  partitioner %s  topics %s\n",
			h, at, r.Model.Name(), r.Model.Currency(), r.Clock, r.Partitioner, strings.Join(r.Topics, ","))
	}
	if len(s.rules.hashes) == 0 {
		return s.notStarted()
	}
	return nil
}

type rulesShowCmd struct {
	Hash string `arg:"" optional:"" help:"Hash or the first part of it. Default: the newest."`
}

func (c *rulesShowCmd) Help() string {
	return `Prints settings and model as JSON. The model in it can be saved and used: Parse reads JSON as it reads YAML.

  tierctl rules show
  tierctl rules show 3f2a91bc`
}

func (c *rulesShowCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	var found []protocol.Hash
	for _, h := range s.rules.hashes {
		if strings.HasPrefix(h.String(), strings.ToLower(c.Hash)) {
			found = append(found, h)
		}
	}
	switch {
	case len(s.rules.hashes) == 0:
		return s.notStarted()
	case c.Hash == "":
		found = found[len(found)-1:]
	case len(found) == 0:
		return fmt.Errorf("no rules %s in topic %s: see tierctl rules list", c.Hash, s.rules.name)
	case len(found) > 1:
		return fmt.Errorf("%d rules begin with %s: give more of the hash", len(found), c.Hash)
	}
	var doc struct {
		Hash     string          `json:"hash"`
		Fold     int             `json:"fold"`
		Settings json.RawMessage `json:"settings"`
		Model    any             `json:"model"`
	}
	raw := s.rules.raw[found[0]]
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("reading rules %.12s: %w", found[0], err)
	}
	doc.Hash = found[0].String()
	if text, ok := doc.Model.(string); ok {
		doc.Model = json.RawMessage(text)
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("printing rules %.12s: %w", found[0], err)
	}
	_, err = fmt.Fprintln(t.out, string(b))
	return err
}
