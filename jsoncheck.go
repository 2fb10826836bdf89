package clerkinvite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxMetadata  = 8 << 10 // Clerk: public_metadata of a user is at most 8 KB
	maxData      = 64 << 10
	maxJSONDepth = 128
)

// encodeMetadata returns metadata as JSON with sorted keys, nil if it is empty. The
// size that counts is the one that goes to Clerk, with the library's mark.
func encodeMetadata(metadata map[string]any, m mark) (json.RawMessage, string) {
	if len(metadata) == 0 {
		return nil, ""
	}
	if _, taken := metadata[metadataKey]; taken {
		return nil, `has the key "clerkinvite", which is the library's own`
	}
	if !validStrings(metadata, 0) {
		return nil, "has text that is not valid UTF-8, or more than 128 levels"
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		return nil, "cannot be written as JSON"
	}
	if reason := checkJSON(b); reason != "" {
		return nil, reason
	}
	if len(withMark(b, m)) > maxMetadata {
		return nil, "is longer than 8 KiB as JSON"
	}
	return b, ""
}

// withMark returns the metadata object, or nil, with the library's mark added.
func withMark(metadata json.RawMessage, m mark) json.RawMessage {
	b := fmt.Appendf(nil, `{"`+metadataKey+`":{"id":%q,"send":%d}`, m.ID, m.Send) // the id is a UUID
	if len(metadata) <= len("{}") {
		return append(b, '}')
	}
	return append(append(b, ','), metadata[1:]...)
}

// validStrings tells what json.Marshal would hide: it replaces invalid UTF-8.
func validStrings(v any, depth int) bool {
	if depth > maxJSONDepth {
		return false
	}
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case map[string]any:
		for k, e := range v {
			if !utf8.ValidString(k) || !validStrings(e, depth+1) {
				return false
			}
		}
	case []any:
		for _, e := range v {
			if !validStrings(e, depth+1) {
				return false
			}
		}
	}
	return true
}

func checkData(data json.RawMessage) string {
	if data == nil {
		return ""
	}
	if len(data) > maxData {
		return "is longer than 64 KiB"
	}
	return checkJSON(data)
}

// checkJSON tells whether PostgreSQL takes b as jsonb. Beyond RFC 8259 it refuses
// NUL, half a surrogate pair, and numbers that its numeric type cannot hold, and it
// gives up on very deep nesting.
func checkJSON(b []byte) string {
	if !utf8.Valid(b) {
		return "is not valid UTF-8"
	}
	if !json.Valid(b) {
		return "is not one JSON value"
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	depth := 0
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "is not one JSON value"
		}
		switch tok := tok.(type) {
		case json.Delim:
			if tok == '{' || tok == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxJSONDepth {
				return "is nested more than 128 levels deep"
			}
		case json.Number:
			// What fits a float64 fits numeric as well, if it is not a long tail of digits.
			if _, err := strconv.ParseFloat(tok.String(), 64); err != nil || len(tok) > 1000 || !smallExponent(tok.String()) {
				return "has a number out of range"
			}
		}
	}
	if badEscape(b) {
		return `has \u0000 or half a surrogate pair, which PostgreSQL cannot store`
	}
	return ""
}

func smallExponent(number string) bool {
	i := strings.IndexAny(number, "eE")
	if i < 0 {
		return true
	}
	e, err := strconv.Atoi(number[i+1:])
	return err == nil && e > -1000 && e < 1000
}

// badEscape looks for \u0000 and unpaired surrogates in valid JSON.
func badEscape(b []byte) bool {
	unit := func(i int) int { // the code unit of the escape \uXXXX at b[i], or -1
		if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
			return -1
		}
		n, _ := strconv.ParseUint(string(b[i+2:i+6]), 16, 16)
		return int(n)
	}
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		switch u := unit(i); {
		case u < 0: // \n and the like: skip the escaped byte, it may be a backslash
			i++
		case u == 0, u >= 0xDC00 && u <= 0xDFFF:
			return true
		case u >= 0xD800 && u <= 0xDBFF:
			if low := unit(i + 6); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 11
		default:
			i += 5
		}
	}
	return false
}
