package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/scoring"
)

func TestModelInitWritesWhatCheckAccepts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.yaml")
	init := []string{"model", "init", "--currency", "jpy", "--zone", "Asia/Tokyo", "--typical-order", "3500", "--margin-rate", "0.4", "-o", path}
	if _, _, err := command(t, init...); err != nil {
		t.Fatal(err)
	}
	out, _, err := command(t, "model", "check", path)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, `^Model first-1 is right\. Its hash is [0-9a-f]{64}\.`, `kept in JPY. Days end at midnight in Asia/Tokyo`,
		`typical order is 3500 JPY; .* 40 % of it`, `Gold +from 60, kept down to 56`, `after  1: contribution \d+`)
	if _, _, err := command(t, init...); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("written over a model: %v", err)
	}
	if out, _, err := command(t, "model", "init", "--currency", "EUR", "--typical-order", "35"); err != nil || !strings.Contains(out, "typical_order_minor: 3500\n") {
		t.Errorf("to the terminal: %v", err)
	}
}

func TestModelInitSaysWhichFlagIsMissingOrWrong(t *testing.T) {
	for want, args := range map[string][]string{
		"--currency: missing":      {"--typical-order", "35"},
		"--typical-order: missing": {"--currency", "EUR"},
		"--currency":               {"--currency", "XXL", "--typical-order", "35"},
		"--typical-order":          {"--currency", "EUR", "--typical-order", "0"},
		"--zone":                   {"--currency", "EUR", "--typical-order", "35", "--zone", "Mars"},
		"--margin-rate":            {"--currency", "EUR", "--typical-order", "35", "--margin-rate", "30"},
	} {
		if _, _, err := command(t, append([]string{"model", "init"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestQuestionsAreRepeatedUntilAnswered(t *testing.T) {
	var asked bytes.Buffer
	q := newQuestions(&terminal{err: &asked}, strings.NewReader("XXL\n\neur\n\nnone\n0.5\n"))
	if got := q.currency(""); got != "EUR" {
		t.Errorf("currency %q", got)
	}
	if got := q.zone(""); got != "UTC" {
		t.Errorf("zone %q, want the default", got)
	}
	if got := q.marginRate("", "EUR"); got != "0.5" {
		t.Errorf("margin rate %q", got)
	}
	if q.err != nil {
		t.Error(q.err)
	}
	contains(t, asked.String(), `"XXL" is not an ISO 4217 currency`, `\[UTC\]`, `"none" is not a decimal`)
	if q.currency(""); q.err == nil {
		t.Error("no answer is an answer")
	}
}

func TestModelCheckNamesFieldAndLine(t *testing.T) {
	right, err := scoring.Init(scoring.InitOptions{Currency: "EUR", TypicalOrderMinor: 3500})
	if err != nil {
		t.Fatal(err)
	}
	lineWith := func(text string) int {
		return 1 + strings.Count(string(right[:bytes.Index(right, []byte(text))]), "\n")
	}
	for _, c := range []struct{ old, new, field string }{
		{"margin_rate: 0.30", "margin_rate: 3", "margin_rate"},
		{"yearly_retention: 0.75", "yearly_retention: 7", "npv.yearly_retention"},
		{"yearly_retention: 0.75", "yearly_retenton: 0.75", "yearly_retenton"},
		{"name: Gold, enter: 60, leave: 56", "name: Gold, enter: 60, leave: 61", "gold"},
		{"neutral: 80", "neutral: high", "high"},
	} {
		path := filepath.Join(t.TempDir(), "model.yaml")
		if err := os.WriteFile(path, bytes.Replace(right, []byte(c.old), []byte(c.new), 1), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _, err := command(t, "model", "check", path)
		if err == nil || out != "" {
			t.Errorf("%s: accepted: %s", c.new, out)
			continue
		}
		at := strconv.Itoa(lineWith(c.old))
		if s := err.Error(); !strings.Contains(s, c.field) || !(strings.Contains(s, ".yaml:"+at+":") || strings.Contains(s, "line "+at+":")) {
			t.Errorf("%s: %v, want field %s and line %s", c.new, err, c.field, at)
		}
	}
}
