package contract

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the schemas of v1 anew where they changed compatibly")

// The two directions in which a schema can change: of events, we must go on to
// read all that was valid; of outputs, all that we write must be valid for who
// reads by the schema of before.
const (
	in  = "in"
	out = "out"
)

func directionOf(name string) string {
	if strings.HasPrefix(name, "tier-change") || strings.HasPrefix(name, "dead-letter") || strings.HasPrefix(name, "customer-value") {
		return out
	}
	return in
}

// breaks names every change from was to is that breaks what v1 promised.
func breaks(direction, path string, was, is object) (broken []string) {
	say := func(format string, args ...any) { broken = append(broken, path+": "+fmt.Sprintf(format, args...)) }
	keys := map[string]bool{}
	for k := range was {
		keys[k] = true
	}
	for k := range is {
		keys[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		old, had := was[k]
		now, has := is[k]
		if reflect.DeepEqual(old, now) {
			continue
		}
		switch k {
		case "$schema", "title", "description", "examples", "$comment", "format", "contentEncoding":
		case "properties", "$defs":
			before, _ := old.(object)
			after, _ := now.(object)
			for name, p := range before {
				if q, ok := after[name].(object); ok {
					broken = append(broken, breaks(direction, path+"/"+name, p.(object), q)...)
				} else {
					say("%s is gone", name)
				}
			}
		case "items":
			if !had || !has {
				say("%s", k)
				break
			}
			broken = append(broken, breaks(direction, path+"/items", old.(object), now.(object))...)
		case "allOf", "anyOf", "oneOf":
			before, _ := old.([]any)
			after, _ := now.([]any)
			if len(before) != len(after) {
				say("%s has other members", k)
				break
			}
			for i := range before {
				broken = append(broken, breaks(direction, fmt.Sprintf("%s/%s/%d", path, k, i), before[i].(object), after[i].(object))...)
			}
		case "required":
			if more := minus(now, old); direction == in && more != nil {
				say("%v are required now", more)
			}
			if less := minus(old, now); direction == out && less != nil {
				say("%v are not promised any more", less)
			}
		case "enum", "type":
			if !had || !has {
				if (direction == in) == has {
					say("%s is %v, was %v", k, now, old)
				}
				break
			}
			if less := minus(old, now); less != nil && (direction == in || k == "enum") {
				say("%s lacks %v", k, less)
			}
			if more := minus(now, old); more != nil && direction == out {
				say("%s has %v more", k, more)
			}
		case "x-values":
			if less := minus(old, now); less != nil {
				say("known values lack %v", less)
			}
		case "minimum", "minLength", "minItems", "maximum", "maxLength":
			from, err1 := number(old)
			to, err2 := number(now)
			tighter := has && (!had || err1 != nil || err2 != nil || (to > from) == strings.HasPrefix(k, "min"))
			if (direction == in) == tighter {
				say("%s is %v, was %v", k, now, old)
			}
		default:
			// A rule that is new binds who writes; one that is gone leaves who
			// reads without a promise; one that changed may do both.
			if had && has || (direction == in) == has {
				say("%s is %v, was %v", k, now, old)
			}
		}
	}
	return broken
}

// minus are the members of list a that b lacks; a type may be a single text.
func minus(a, b any) (rest []any) {
	list := func(v any) []any {
		switch v := v.(type) {
		case []any:
			return v
		case nil:
			return nil
		}
		return []any{v}
	}
	for _, x := range list(a) {
		if !slices.ContainsFunc(list(b), func(y any) bool { return reflect.DeepEqual(x, y) }) {
			rest = append(rest, x)
		}
	}
	return rest
}

// TestSchemasStayCompatible holds the schemas to those of v1 as they were
// accepted last, in testdata/v1. A compatible change is written there with
// -update; one that breaks v1 makes v2, which is another file and another type.
func TestSchemasStayCompatible(t *testing.T) {
	names, err := fs.Glob(Schemas(), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := filepath.Glob("testdata/v1/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range golden {
		if !slices.Contains(names, filepath.Base(path)) {
			t.Errorf("%s is gone: what v1 promised must stay", filepath.Base(path))
		}
	}
	for _, name := range names {
		path := filepath.Join("testdata", "v1", name)
		now, err := fs.ReadFile(Schemas(), name)
		if err != nil {
			t.Fatal(err)
		}
		was, err := os.ReadFile(path)
		if err == nil {
			if bad := breaks(directionOf(name), name, document(t, was).(object), document(t, now).(object)); bad != nil {
				t.Errorf("v1 is broken:\n%s", strings.Join(bad, "\n"))
				continue
			}
		}
		if bytes.Equal(was, now) {
			continue
		}
		if !*update {
			t.Errorf("%s differs from what was accepted last, compatibly: -update accepts it", name)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// rules are the rows of the table of compatibility in docs/events.md, each
// with an example of the change.
var rules = []struct {
	change   string
	was, is  string
	in, out  bool // whether it stays v1
	onlyOpen bool // of open lists, which events do not have
}{
	{change: "another description", was: `{"description":"a"}`, is: `{"description":"b"}`, in: true, out: true},
	{change: "a new optional field", was: `{"properties":{}}`, is: `{"properties":{"a":{"type":"string"}}}`, in: true, out: true},
	{change: "a new required field", was: `{"properties":{},"required":[]}`, is: `{"properties":{"a":{}},"required":["a"]}`, out: true},
	{change: "a field removed", was: `{"properties":{"a":{}}}`, is: `{"properties":{}}`},
	{change: "an optional field becomes required", was: `{"properties":{"a":{}},"required":[]}`, is: `{"properties":{"a":{}},"required":["a"]}`, out: true},
	{change: "a required field becomes optional", was: `{"required":["a","b"]}`, is: `{"required":["b"]}`, in: true},
	{change: "a value more in a closed list", was: `{"enum":["a"]}`, is: `{"enum":["a","b"]}`, in: true},
	{change: "a value less in a closed list", was: `{"enum":["a","b"]}`, is: `{"enum":["a"]}`},
	{change: "a value more in an open list", was: `{"x-values":["a"]}`, is: `{"x-values":["a","b"]}`, in: true, out: true, onlyOpen: true},
	{change: "a value less in an open list", was: `{"x-values":["a","b"]}`, is: `{"x-values":["a"]}`, onlyOpen: true},
	{change: "another kind of value besides, such as null", was: `{"type":"string"}`, is: `{"type":["string","null"]}`, in: true},
	{change: "a kind of value less", was: `{"type":["string","null"]}`, is: `{"type":"string"}`, out: true},
	{change: "a wider limit", was: `{"maxLength":128,"minimum":1}`, is: `{"maxLength":256,"minimum":0}`, in: true},
	{change: "a narrower limit", was: `{"maximum":10}`, is: `{"maximum":9,"minLength":1}`, out: true},
	{change: "a new rule, such as a pattern", was: `{"type":"string"}`, is: `{"type":"string","pattern":"^a"}`, out: true},
	{change: "a rule less", was: `{"pattern":"^a"}`, is: `{}`, in: true},
	{change: "another rule", was: `{"items":{"pattern":"^a"}}`, is: `{"items":{"pattern":"^b"}}`},
}

func TestRulesOfCompatibility(t *testing.T) {
	verdict := map[bool]string{true: "v1", false: "v2"}
	documented := map[string][2]string{}
	b, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := bytes.Cut(b, []byte("\n## What may change\n"))
	section, _, _ = bytes.Cut(section, []byte("\n## "))
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z][^|]*) \| ([^|]*) \| ([^|]*) \|$`).FindAllSubmatch(section, -1) {
		documented[string(m[1])] = [2]string{string(m[2]), string(m[3])}
	}
	for _, r := range rules {
		was, is := document(t, []byte(r.was)).(object), document(t, []byte(r.is)).(object)
		got := [2]string{verdict[breaks(in, "", was, is) == nil], verdict[breaks(out, "", was, is) == nil]}
		if want := [2]string{verdict[r.in], verdict[r.out]}; got != want {
			t.Errorf("%s: judged %q, want %q", r.change, got, want)
		}
		if r.onlyOpen {
			got[0] = "–"
		}
		if documented[r.change] != got {
			t.Errorf("%s: documented as %q, is %q", r.change, documented[r.change], got)
		}
		delete(documented, r.change)
	}
	for change := range documented {
		t.Errorf("%s: documented, but no rule", change)
	}
}

// The comparison finds what is deep inside the real schemas.
func TestBreakingChangesAreFound(t *testing.T) {
	for what, edit := range map[string]struct{ name, old, new string }{
		"a field of an event renamed":     {"purchase.v1.json", `"cost_minor"`, `"costs_minor"`},
		"an ID shorter":                   {"common.v1.json", `"maxLength": 128,`, `"maxLength": 64,`},
		"a currency less":                 {"common.v1.json", `"EUR", `, ``},
		"a status less":                   {"complaint.v1.json", `"reopened", `, ``},
		"a condition changed":             {"feedback.v1.json", `"maximum": 7`, `"maximum": 5`},
		"a component's field renamed":     {"tier-change.v1.json", `"weight"`, `"share"`},
		"a tier's rank may be null":       {"tier-change.v1.json", `"type": "integer",` + "\n          " + `"minimum": 0`, `"type": ["integer", "null"],` + "\n          " + `"minimum": 0`},
		"a reason less":                   {"tier-change.v1.json", `"time_decay"`, `"decay"`},
		"a header of a dead letter gone":  {"dead-letter.v1.json", `"tierstream-offset": {`, `"tierstream-position": {`},
		"the sequence compares otherwise": {"tier-change-headers.v1.json", `{20}`, `{10}`},
	} {
		b, err := fs.ReadFile(Schemas(), edit.name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(b), edit.old, edit.new, 1)
		if changed == string(b) || !json.Valid([]byte(changed)) {
			t.Errorf("%s: %s has no %s", what, edit.name, edit.old)
			continue
		}
		if bad := breaks(directionOf(edit.name), "", document(t, b).(object), document(t, []byte(changed)).(object)); bad == nil {
			t.Errorf("%s: not found", what)
		}
	}
}
