package mapping

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"unicode/utf8"

	"github.com/bufbuild/protocompile"
	"github.com/twmb/avro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The types of schemas, as a registry names them.
const (
	Avro     = "AVRO"
	Protobuf = "PROTOBUF"
	JSON     = "JSON"
)

// Schema is what a registry holds under an ID, with all that it refers to: a
// payload can be read by it without asking anybody. It is immutable.
type Schema struct {
	ID   int    `yaml:"id" json:"id"`
	Type string `yaml:"type" json:"type"`
	// Text is not needed of a JSON Schema: its payload describes itself, and is
	// not validated.
	Text       string      `yaml:"schema" json:"schema,omitempty"`
	References []Reference `yaml:"references" json:"references,omitempty"` // each after those that it refers to itself

	once sync.Once
	read func(payload []byte, maxDepth int) (any, error)
	err  error // why nothing can be read by it
}

// Reference is a schema that another one names: the type of an Avro schema, the
// import path of a Protobuf file.
type Reference struct {
	Name string `yaml:"name" json:"name"`
	Text string `yaml:"schema" json:"schema"`
}

func (s *Schema) validate() error {
	switch {
	case s.ID < 0 || s.ID > 1<<31-1:
		return fmt.Errorf("schema %d: no ID of a registry", s.ID)
	case s.Type != Avro && s.Type != Protobuf && s.Type != JSON:
		return fmt.Errorf("schema %d: type %q: want %s, %s or %s", s.ID, s.Type, Avro, Protobuf, JSON)
	}
	return nil
}

// Check says why nothing can be read by the schema; nil when all is well.
func (s *Schema) Check() error {
	s.once.Do(func() {
		switch s.Type {
		case Avro:
			s.read, s.err = avroReader(s)
		case Protobuf:
			s.read, s.err = protobufReader(s)
		case JSON:
			s.read = func(b []byte, maxDepth int) (any, error) { return parseJSON(b, maxDepth) }
		}
		if s.err != nil {
			s.err = fmt.Errorf("schema %d (%s) cannot be used: %w", s.ID, s.Type, s.err)
		}
	})
	return s.err
}

// decode reads a payload, without the bytes that name the schema.
func (s *Schema) decode(payload []byte, maxDepth int) (any, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	v, err := s.read(payload, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("by schema %d (%s): %w", s.ID, s.Type, err)
	}
	return v, nil
}

func avroReader(s *Schema) (func([]byte, int) (any, error), error) {
	var cache avro.SchemaCache
	for _, r := range s.References {
		if _, err := cache.Parse(r.Text); err != nil {
			return nil, fmt.Errorf("its reference %s: %w", r.Name, err)
		}
	}
	schema, err := cache.Parse(s.Text)
	if err != nil {
		return nil, err
	}
	return func(b []byte, maxDepth int) (any, error) {
		var v any
		rest, err := schema.Decode(b, &v)
		if err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			return nil, fmt.Errorf("%d bytes are left over", len(rest))
		}
		return fromAvro(v, maxDepth)
	}, nil
}

var (
	errNesting = errors.New("nested too deeply")
	errUTF8    = errors.New("a text is not UTF-8")
)

// fromAvro makes what the library decoded values of expressions.
func fromAvro(v any, depth int) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		if depth == 0 {
			return nil, errNesting
		}
		for k, e := range v {
			x, err := fromAvro(e, depth-1)
			if err != nil {
				return nil, err
			}
			v[k] = x
		}
		return v, nil
	case []any:
		if depth == 0 {
			return nil, errNesting
		}
		for i, e := range v {
			x, err := fromAvro(e, depth-1)
			if err != nil {
				return nil, err
			}
			v[i] = x
		}
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, errUTF8
		}
		return v, nil
	case *big.Rat:
		return rational(v)
	case [16]byte: // a UUID of 16 bytes
		return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:]), nil
	case int32:
		return int64(v), nil
	case float32:
		return float64(v), nil
	default:
		return v, nil
	}
}

// mainFile is the import path of a Protobuf schema itself, which has none.
const mainFile = "schema.proto"

func protobufReader(s *Schema) (func([]byte, int) (any, error), error) {
	files := map[string]string{}
	for _, r := range s.References {
		files[r.Name] = r.Text
	}
	files[mainFile] = s.Text
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}),
		MaxParallelism: 1,
	}
	compiled, err := c.Compile(context.Background(), mainFile)
	if err != nil {
		return nil, err
	}
	messages := compiled[0].Messages()
	return func(b []byte, maxDepth int) (any, error) {
		of, b, err := messageOf(messages, b)
		if err != nil {
			return nil, err
		}
		m := dynamicpb.NewMessage(of)
		if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(b, m); err != nil {
			return nil, err
		}
		return fromProtobuf(m)
	}, nil
}

// messageOf finds the message that a payload holds: Confluent's wire format
// begins with the path to it through the file, as zigzag varints after their
// number; a single zero stands for the first message.
func messageOf(in protoreflect.MessageDescriptors, b []byte) (of protoreflect.MessageDescriptor, rest []byte, err error) {
	next := func() (int64, error) {
		n, size := binary.Varint(b)
		if size <= 0 {
			return 0, errors.New("the path to the message is cut off")
		}
		b = b[size:]
		return n, nil
	}
	n, err := next()
	if err != nil {
		return nil, nil, err
	}
	path := []int64{0}
	if n != 0 {
		if n < 0 || n > 32 {
			return nil, nil, fmt.Errorf("a path of %d to the message", n)
		}
		path = make([]int64, n)
		for i := range path {
			if path[i], err = next(); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, i := range path {
		if i < 0 || i >= int64(in.Len()) {
			return nil, nil, fmt.Errorf("the schema has no message %d", path)
		}
		of = in.Get(int(i))
		in = of.Messages()
	}
	return of, b, nil
}

// fromProtobuf makes a message a value of expressions: its fields by their
// names in the schema, without those that are not set and could be. An
// enumeration is its name. Timestamps, durations and wrappers are what they
// stand for.
func fromProtobuf(m protoreflect.Message) (any, error) {
	of := m.Descriptor()
	field := func(name protoreflect.Name) protoreflect.Value { return m.Get(of.Fields().ByName(name)) }
	switch of.FullName() {
	case "google.protobuf.Timestamp":
		return timestampOf(field("seconds").Int(), field("nanos").Int())
	case "google.protobuf.Duration":
		return durationOf(field("seconds").Int(), field("nanos").Int())
	case "google.protobuf.DoubleValue", "google.protobuf.FloatValue", "google.protobuf.Int64Value", "google.protobuf.UInt64Value",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue":
		fd := of.Fields().ByName("value")
		return protobufValue(fd, m.Get(fd))
	}
	v := map[string]any{}
	fields := of.Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.HasPresence() && !m.Has(fd) {
			continue
		}
		x, err := protobufField(fd, m.Get(fd))
		if err != nil {
			return nil, err
		}
		v[string(fd.Name())] = x
	}
	return v, nil
}

func protobufField(fd protoreflect.FieldDescriptor, v protoreflect.Value) (any, error) {
	switch {
	case fd.IsMap():
		out := map[string]any{}
		var err error
		v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
			out[k.String()], err = protobufValue(fd.MapValue(), e)
			return err == nil
		})
		return out, err
	case fd.IsList():
		out := make([]any, v.List().Len())
		for i := range out {
			var err error
			if out[i], err = protobufValue(fd, v.List().Get(i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return protobufValue(fd, v)
}

func protobufValue(fd protoreflect.FieldDescriptor, v protoreflect.Value) (any, error) {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return fromProtobuf(v.Message())
	case protoreflect.EnumKind:
		if e := fd.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name()), nil
		}
		return int64(v.Enum()), nil // of a newer schema
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return unsigned(v.Uint()), nil
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return int64(v.Uint()), nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Sint32Kind, protoreflect.Sint64Kind, protoreflect.Sfixed32Kind, protoreflect.Sfixed64Kind:
		return v.Int(), nil
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return v.Float(), nil
	case protoreflect.StringKind:
		if !utf8.ValidString(v.String()) { // of proto2, where nobody checks
			return nil, errUTF8
		}
		return v.String(), nil
	default: // bool, bytes
		return v.Interface(), nil
	}
}
