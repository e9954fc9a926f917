package docs

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/view"
)

// members are the places of a type's members in its JSON.
func members(typ reflect.Type, path string, into map[string]bool) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() {
		return
	}
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		name = strings.TrimPrefix(path+"."+name, ".")
		into[name] = true
		members(f.Type, name, into)
	}
}

// Every term names a field of the value document, a command and a test, or says
// why it is out. That the commands are there is TestCommandsAreDocumented's; that
// the tests are, TestNamedTestsAndFilesExist's.
func TestTermsLeadSomewhere(t *testing.T) {
	fields := map[string]bool{}
	members(reflect.TypeFor[view.View](), "", fields)
	commands := map[string]bool{}
	for l := range strings.SplitSeq(read(t, "cli.md"), "\n") {
		if row := cells(l); len(row) == 2 {
			commands[bare(row[0])] = true
		}
	}
	text := read(t, "terms.md")
	seen := map[string]bool{}
	term := func(row []string) {
		if row[0] == "" || row[1] == "" || seen[row[0]] {
			t.Errorf("term %q, %q: empty, or there twice", row[0], row[1])
		}
		seen[row[0]] = true
	}
	rows := table(t, text, "Term", "术语", "Field")
	for _, row := range rows {
		term(row)
		if f := bare(row[2]); f != "–" && !fields[f] {
			t.Errorf("%s: the value document has no %s", row[0], f)
		}
		if c := bare(row[3]); !commands[c] {
			t.Errorf("%s: there is no command %q", row[0], c)
		}
		if !testName.MatchString(row[4]) {
			t.Errorf("%s: %s names no test", row[0], row[4])
		}
	}
	out := table(t, text, "Term", "术语", "Out, because")
	for _, row := range out {
		term(row)
		if row[2] == "" {
			t.Errorf("%s is out without a reason", row[0])
		}
	}
	if len(rows) < 50 || len(out) < 10 {
		t.Errorf("only %d terms and %d that are out", len(rows), len(out))
	}
}
