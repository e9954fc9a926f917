package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tierstream/tierstream/internal/scoring"
)

// edition is a model file on its way to its next version: values change where
// they stand, comments stay.
type edition struct{ text []byte }

// root is the top-level mapping as it stands.
func (e *edition) root() (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(e.text, &doc); err != nil {
		return nil, fmt.Errorf("reading the base model: %w", err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("reading the base model: it is no mapping")
	}
	return doc.Content[0], nil
}

// child is the value of a key of a mapping, nil when it is not there.
func child(n *yaml.Node, key string) (k, v *yaml.Node) {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// set gives a key a value, which is YAML on one line. The mapping that the key
// is in is made if it is not there. A number in the path is a place in a list.
func (e *edition) set(value string, path ...string) error {
	at, err := e.root()
	if err != nil {
		return err
	}
	for i, name := range path {
		if n, err := strconv.Atoi(name); err == nil && at.Kind == yaml.SequenceNode && n < len(at.Content) && i < len(path)-1 {
			at = at.Content[n]
			continue
		}
		key, v := child(at, name)
		if key == nil {
			for j := len(path) - 1; j > i; j-- {
				value = "{" + path[j] + ": " + value + "}"
			}
			return e.insert(at, name+": "+value)
		}
		if i == len(path)-1 {
			return e.replace(key, v, value)
		}
		if v.Kind != yaml.MappingNode && v.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: %s is no mapping", v.Line, strings.Join(path[:i+1], "."))
		}
		at = v
	}
	return nil
}

// offset is the place of a line and a column, both from 1.
func (e *edition) offset(line, column int) int {
	at := 0
	for range line - 1 {
		at += bytes.IndexByte(e.text[at:], '\n') + 1
	}
	// Columns are characters, not bytes.
	return at + len(string([]rune(string(e.text[at:]))[:column-1]))
}

// splice puts text in place of what stands between two offsets.
func (e *edition) splice(from, to int, text string) {
	e.text = slices.Concat(e.text[:from], []byte(text), e.text[to:])
}

// insert adds an entry at a mapping's begin.
func (e *edition) insert(mapping *yaml.Node, entry string) error {
	if mapping.Style&yaml.FlowStyle != 0 {
		at := e.offset(mapping.Line, mapping.Column) + 1
		if len(mapping.Content) > 0 {
			entry += ", "
		}
		e.splice(at, at, entry)
		return nil
	}
	first := mapping.Content[0]
	above := first.Line // above the first key's comment
	for above > 1 && bytes.HasPrefix(bytes.TrimSpace(e.text[e.offset(above-1, 1):]), []byte("#")) {
		above--
	}
	line := e.offset(above, 1)
	if mapping.Column == 1 { // top level: at the end, after a blank line
		e.text = append(bytes.TrimRight(e.text, "\n"), ("\n\n" + entry + "\n")...)
		return nil
	}
	e.splice(line, line, strings.Repeat(" ", first.Column-1)+entry+"\n")
	return nil
}

// replace puts another value behind a key.
func (e *edition) replace(key, v *yaml.Node, value string) error {
	if v.Kind != yaml.ScalarNode && v.Style&yaml.FlowStyle == 0 {
		// A block below the key.
		from := e.offset(key.Line, key.Column)
		from += bytes.IndexByte(e.text[from:], ':') + 1
		e.splice(from, e.lineEnd(last(v)), " "+value)
		return nil
	}
	from := e.offset(v.Line, v.Column)
	to, err := e.end(v, from)
	if err != nil {
		return err
	}
	e.splice(from, to, value)
	return nil
}

// last is the last line that a node has.
func last(n *yaml.Node) int {
	line := n.Line
	for _, c := range n.Content {
		line = max(line, last(c))
	}
	return line
}

func (e *edition) lineEnd(line int) int {
	at := e.offset(line, 1)
	if n := bytes.IndexByte(e.text[at:], '\n'); n >= 0 {
		return at + n
	}
	return len(e.text)
}

// end is where a value on one line, or in brackets, ends.
func (e *edition) end(v *yaml.Node, from int) (int, error) {
	switch {
	case v.Kind == yaml.ScalarNode && v.Style == 0:
		return from + len(v.Value), nil
	case v.Kind == yaml.ScalarNode && v.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		quote := e.text[from]
		for i := from + 1; i < len(e.text); i++ {
			switch {
			case e.text[i] == '\\' && quote == '"':
				i++
			case e.text[i] == quote:
				return i + 1, nil
			}
		}
	case v.Style&yaml.FlowStyle != 0:
		depth := 0
		for i := from; i < len(e.text); i++ {
			switch e.text[i] {
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth == 0 {
					return i + 1, nil
				}
			case '"', '\'', '#':
				return 0, fmt.Errorf("line %d: write this list without quotes and comments, then it can be changed", v.Line)
			}
		}
	}
	return 0, fmt.Errorf("line %d: a value in this form cannot be changed: write it on one line", v.Line)
}

// section gives a top-level key a value of several lines, indented, or takes it
// from where it stands.
func (e *edition) section(key string, value any) error {
	at, err := e.root()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(map[string]any{key: value}); err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	if at.Style&yaml.FlowStyle != 0 { // the canonical form, which is JSON
		b, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("writing %s: %w", key, err)
		}
		if k, v := child(at, key); k != nil && v.Kind != yaml.ScalarNode {
			return fmt.Errorf("the base model is written as JSON and has %s: take it out first", key)
		}
		return e.insert(at, strconv.Quote(key)+": "+string(b))
	}
	k, v := child(at, key)
	if k == nil {
		e.text = append(bytes.TrimRight(e.text, "\n"), "\n\n"+text.String()...)
		return nil
	}
	to := e.lineEnd(last(v))
	if v.Style&yaml.FlowStyle != 0 || v.Kind == yaml.ScalarNode {
		if to, err = e.end(v, e.offset(v.Line, v.Column)); err != nil {
			return err
		}
	}
	e.splice(e.offset(k.Line, 1), to, strings.TrimRight(text.String(), "\n"))
	return nil
}

// provenance adds one entry to what the model says about its origin.
func (e *edition) provenance(key string, value any) error {
	at, err := e.root()
	if err != nil {
		return err
	}
	all := map[string]any{}
	if _, v := child(at, "provenance"); v != nil {
		if err := v.Decode(&all); err != nil {
			return fmt.Errorf("reading provenance: %w", err)
		}
	}
	all[key] = value
	return e.section("provenance", all)
}

var numbered = regexp.MustCompile(`^(.*?)(\d+)$`)

// nextName is the name of the version after this one: demo-1, demo-2.
func nextName(name string) string {
	if m := numbered.FindStringSubmatch(name); m != nil {
		if n, err := strconv.Atoi(m[2]); err == nil {
			return m[1] + strconv.Itoa(n+1)
		}
	}
	return name + "-2"
}

// versionFlags say from what a model version is made, and where it goes.
type versionFlags struct {
	Base   string `help:"The model whose next version this is: all that is not computed here is taken from it." type:"existingfile" placeholder:"FILE"`
	Name   string `help:"Name of the version. Default: that of the base with its number raised." placeholder:"NAME"`
	Output string `short:"o" help:"Write the model to this file, which must not exist, instead of the terminal." placeholder:"FILE"`
}

// open reads the base.
func (f *versionFlags) open() (*edition, *scoring.Model, error) {
	text, err := os.ReadFile(f.Base)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the base model: %w", err)
	}
	m, err := scoring.Parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f.Base, err)
	}
	return &edition{text}, m, nil
}

// finish names the version, and writes it if it is a model.
func (f *versionFlags) finish(t *terminal, e *edition, base string) (*scoring.Model, error) {
	name := f.Name
	if name == "" {
		name = nextName(base)
	}
	if err := e.set(strconv.Quote(name), "name"); err != nil {
		return nil, err
	}
	m, err := scoring.Parse(e.text)
	if err != nil {
		return nil, fmt.Errorf("the new version is not accepted: %w", err)
	}
	if f.Output == "" {
		_, err := t.out.Write(e.text)
		return m, err
	}
	file, err := os.OpenFile(f.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("writing the model: %s exists already, and a model in use must not change under its name", f.Output)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the model: %w", err)
	}
	_, err = file.Write(e.text)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("writing the model: %w", err)
	}
	t.note("wrote %s, model %s; look at it with tierctl model check %s", f.Output, m.Name(), f.Output)
	return m, nil
}
