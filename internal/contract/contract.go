// Package contract is what others build on: the JSON Schemas of what comes in
// and of what goes out, and the two kinds of output as Go values. It belongs to
// readers and producers; the consumer itself decodes by package event and
// encodes by package fold, and tests hold those two to the schemas.
package contract

import (
	"embed"
	"io/fs"
)

//go:embed schemas/*.json
var files embed.FS

// Schemas are the JSON Schemas (draft 2020-12), one file each, which refer to
// one another by file name:
//
//	<type>.v1.json               data of an event of that type
//	event.v1.json                a whole event in structured mode
//	common.v1.json               what these share
//	tier-change.v1.json          data of a tier change
//	tier-change-headers.v1.json  its headers, as an object of strings
//	dead-letter.v1.json          the headers that a dead letter adds
//	customer-value.v1.json       a customer's whole value
//
// In them x-values lists the known values of a text whose list may grow.
func Schemas() fs.FS {
	sub, err := fs.Sub(files, "schemas")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
