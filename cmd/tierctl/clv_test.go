package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// clv runs the command on lines and returns a line of answer for each.
func clv(t *testing.T, lines string) []string {
	t.Helper()
	var out, errs bytes.Buffer
	if err := run(t.Context(), []string{"clv"}, func(string) string { return "" }, strings.NewReader(lines), &out, &errs); err != nil || errs.Len() > 0 {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// The values that package btyd is held to come out of the command too, and
// those of the pairs, which only the command has.
func TestCLVGivesTheGoldenValues(t *testing.T) {
	b, err := os.ReadFile("../../internal/scoring/btyd/testdata/golden.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	// The file's lines have the value too, which is no field of a question.
	var questions strings.Builder
	var want []float64
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var line map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		var v float64
		if err := json.Unmarshal(line["value"], &v); err != nil {
			t.Fatal(err)
		}
		want = append(want, v)
		delete(line, "value")
		q, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		questions.Write(append(q, '\n'))
	}
	got := clv(t, questions.String())
	if len(got) != len(want) || len(got) < 1000 {
		t.Fatalf("%d answers to %d questions", len(got), len(want))
	}
	for i, line := range got {
		var a struct {
			ID    int
			Value *float64
		}
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Value == nil || a.ID != i+1 {
			t.Errorf("question %d: %s", i+1, line)
			continue
		}
		if d := math.Abs(*a.Value - want[i]); !(d <= 1e-9*math.Abs(want[i]) || d < 1e-14) {
			t.Errorf("question %d: %s, want %v", i+1, line, want[i])
		}
	}
}

// The help's example says what comes out.
func TestCLVHelpWasRun(t *testing.T) {
	_, example, ok := strings.Cut((&clvCmd{}).Help(), "$ echo '")
	if !ok {
		t.Fatal("no example")
	}
	question, rest, _ := strings.Cut(example, "' | tierctl clv\n")
	if got := clv(t, question); got[0] != strings.TrimSpace(rest) {
		t.Errorf("the example gives %s", got[0])
	}
}

func TestCLVAnswersEveryLine(t *testing.T) {
	const (
		bg   = `"model":"BG/NBD","params":{"r":0.243,"alpha":4.414,"a":0.793,"b":2.426}`
		cnbd = `"model":"MBG/CNBD","params":{"k":2,"r":0.243,"alpha":4.414,"a":0.793,"b":2.426}`
		gg   = `"model":"Gamma-Gamma","params":{"p":6.25,"q":3.74,"v":15.44}`
		bb   = `"model":"BG/BB","params":{"alpha":1.2,"beta":0.75,"gamma":0.66,"delta":2.78}`
		nbd  = `"model":"NBD","params":{"r":0.7,"alpha":12.5}`
		of   = `"gammagamma":{"p":6.25,"q":3.74,"v":15.44}`
		his  = `"x":2,"t_x":30,"T":39`
	)
	cases := []struct{ question, answer string }{
		{`nonsense`, `{"id":null,"error":"invalid character 'o' in literal null (expecting 'u')"}`},
		{`[1]`, `{"id":null,"error":"the line is a JSON array: want an object"}`},
		{`{"id":{"a":"<&>"},` + bg + `,"inputs":{"x":2,"t_x":50,"T":39},"output":"p_alive"}`, `{"id":{"a":"<&>"},"error":"inputs: t_x is 50 and T is 39: the last purchase cannot lie after now"}`},
		{`{"id":7,"model":7}`, `{"id":7,"error":"model is a JSON number"}`},
		{`{"id":1,"extra":1,` + bg + `,"inputs":{` + his + `},"output":"p_alive"}`, `{"id":1,"error":"unknown field \"extra\""}`},
		{`{"id":1,` + bg + `,"inputs":{` + his + `,"y":1},"output":"p_alive"}`, `{"id":1,"error":"inputs: unknown field \"y\""}`},
		{`{"id":1,` + bg + `,"inputs":{"x":2,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: t_x is missing"}`},
		{`{"id":1,` + bg + `,"inputs":{"x":-1,"t_x":0,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is -1: want 0 or more"}`},
		{`{"id":1,` + bg + `,"inputs":{"x":1.5,"t_x":3,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is 1.5: want a whole number, 0 to 1e+09"}`},
		{`{"id":1,` + bg + `,"inputs":{"x":0,"t_x":3,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is 0 and t_x is 3: without a repeat purchase t_x is 0"}`},
		{`{"id":1,` + bg + `,"inputs":{"x":null,"t_x":3,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is null: want a number"}`},
		{`{"id":1,` + bg + `,"inputs":{"x":1e999,"t_x":3,"T":39},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is 1e999: want a number"}`},
		{`{"id":1,` + bg + `,"inputs":{` + his + `},"output":"alive"}`, `{"id":1,"error":"unknown output \"alive\""}`},
		{`{"id":1,` + bg + `,"inputs":{` + his + `,"mean_value":3},"output":"conditional_mean_value"}`, `{"id":1,"error":"model BG/NBD has no conditional_mean_value"}`},
		{`{"id":1,` + gg + `,"inputs":{` + his + `},"output":"p_alive"}`, `{"id":1,"error":"model Gamma-Gamma has no p_alive"}`},
		{`{"id":1,"model":"Weibull","params":{},"inputs":{},"output":"p_alive"}`, `{"id":1,"error":"unknown model \"Weibull\""}`},
		{`{"id":1,"model":"NBD + Gamma-Gamma","params":{},"inputs":{},"output":"p_alive"}`, `{"id":1,"error":"unknown model \"NBD + Gamma-Gamma\""}`},
		{`{"id":1,"model":"NBD","params":{"r":-1,"alpha":2},"inputs":{` + his + `},"output":"p_alive"}`, `{"id":1,"error":"NBD: parameter r is -1: want 1e-09 to 1e+09"}`},
		{`{"id":1,"model":"NBD","params":{"r":1},"inputs":{` + his + `},"output":"p_alive"}`, `{"id":1,"error":"params: alpha is missing"}`},
		{`{"id":1,"model":"NBD","params":{"r":1,"alpha":2,"b":1},"inputs":{` + his + `},"output":"p_alive"}`, `{"id":1,"error":"params: unknown field \"b\": want r, alpha"}`},
		{`{"id":1,` + nbd + `,"inputs":{` + his + `,"p_alive_threshold":0.5},"output":"T_at_crossing"}`, `{"id":1,"error":"P(alive) never falls to 0.5"}`},
		{`{"id":1,` + cnbd + `,"inputs":{` + his + `},"output":"log_likelihood"}`, `{"id":1,"error":"inputs: litt is missing"}`},
		{`{"id":1,` + bb + `,"inputs":{"x":3,"t_x":2,"n":4},"output":"p_alive"}`, `{"id":1,"error":"inputs: x is 3 and t_x is 2: there cannot be more purchases than opportunities"}`},
		{`{"id":1,` + bg + `,"inputs":{` + his + `,"continuous_discount_per_unit":0},"output":"dert"}`, `{"id":1,"error":"inputs: continuous_discount_per_unit is 0: want 1e-9 to 1e6, or 0 with t"}`},
		{`{"id":1,"model":"BG/NBD + Gamma-Gamma","params":{` + of + `},"inputs":{},"output":"p_alive"}`, `{"id":1,"error":"params: bgnbd is missing"}`},
		{`{"id":1,"model":"Gamma-Gamma","params":{"p":1,"q":0.5,"v":2},"inputs":{"x":0},"output":"conditional_mean_value"}`, `{"id":1,"error":"p·x + q is not above 1: values have no mean"}`},
		// And right ones between them.
		{`{"id":"ok",` + nbd + `,"inputs":{` + his + `},"output":"p_alive"}`, `{"id":"ok","value":1}`},
		{`{"id":null,` + nbd + `,"inputs":{"x":0,"t_x":0,"T":37.5,"t":100},"output":"conditional_expected_purchases"}`, `{"id":null,"value":1.4}`},
		{`{` + nbd + `,"inputs":{"x":0,"t_x":0,"T":0},"output":"p_alive"}`, `{"id":null,"value":1}`},
	}
	var questions strings.Builder
	for _, c := range cases {
		questions.WriteString(c.question + "\n\n")
	}
	for i, got := range clv(t, questions.String()) {
		if got != cases[i].answer {
			t.Errorf("%s\nis answered %s\n       want %s", cases[i].question, got, cases[i].answer)
		}
	}
}
