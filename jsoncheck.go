package clerkinvite

import (
	"bytes"
	"encoding/json"
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
	for key := range metadata {
		if strings.EqualFold(key, metadataKey) {
			return nil, `has the key "clerkinvite", which is the library's own`
		}
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		return nil, "cannot be written as JSON"
	}
	// Marshal writes invalid UTF-8 as this escape, and a true U+FFFD as itself.
	if hasEscape(b, func(unit int) bool { return unit == utf8.RuneError }) {
		return nil, "has text that is not valid UTF-8"
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
	b := []byte(`{"` + metadataKey + `":{"id":"` + m.ID + `","send":` + strconv.Itoa(m.Send) + `}`) // the id is a UUID
	if len(metadata) <= len("{}") {
		return append(b, '}')
	}
	return append(append(b, ','), metadata[1:]...)
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
	high := -1 // where the second half of a pair has to begin
	bad := hasEscapeAt(b, func(at, unit int) bool {
		low := unit >= 0xDC00 && unit <= 0xDFFF
		if unit == 0 || low != (high == at) || high >= 0 && high != at {
			return true
		}
		if high = -1; unit >= 0xD800 && unit <= 0xDBFF {
			high = at + len(`\u0000`)
		}
		return false
	})
	return bad || high >= 0
}

func hasEscape(b []byte, is func(unit int) bool) bool {
	return hasEscapeAt(b, func(_, unit int) bool { return is(unit) })
}

// hasEscapeAt reports whether valid JSON has an escape \uXXXX for which is holds.
func hasEscapeAt(b []byte, is func(at, unit int) bool) bool {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		if b[i+1] != 'u' {
			i++ // \n and the like; the escaped byte may be a backslash
			continue
		}
		unit, _ := strconv.ParseUint(string(b[i+2:i+6]), 16, 16)
		if is(i, int(unit)) {
			return true
		}
		i += len(`u0000`)
	}
	return false
}
