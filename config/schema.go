package config

import (
	_ "embed"
	"slices"
)

// schema is made from the types by TestSchema, with -update.
//
//go:embed schema.json
var schema []byte

// Schema returns the JSON Schema (draft 2020-12) of the file, for editors.
func Schema() []byte { return slices.Clone(schema) }
