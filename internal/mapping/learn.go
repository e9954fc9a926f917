package mapping

import (
	"context"
	"errors"
)

// ErrUnknown says that the registry answered that it has no schema of this ID.
var ErrUnknown = errors.New("the registry has no such schema")

// Source answers schemas by ID: a registry.
type Source interface {
	// Schema fails with ErrUnknown when there is none; any other error may be
	// over in a moment.
	Schema(ctx context.Context, id int) (*Schema, error)
}

// Learn is the mapping with the schemas of these IDs. Those that the source does
// not know are left out and answered; any other failure is an error, and
// nothing is to be decided before it is over.
func (m *Mapping) Learn(ctx context.Context, from Source, ids []int) (learned *Mapping, unknown []int, err error) {
	var schemas []*Schema
	for _, id := range ids {
		if m.schemas[id] != nil {
			continue
		}
		s, err := from.Schema(ctx, id)
		switch {
		case errors.Is(err, ErrUnknown):
			unknown = append(unknown, id)
		case err != nil:
			return nil, nil, err
		default:
			schemas = append(schemas, s)
		}
	}
	if len(schemas) == 0 {
		return m, unknown, nil
	}
	return m.With(schemas...), unknown, nil
}
