package clerkinvite

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// domains is idna.Lookup, and refuses empty labels and those over 63 bytes as well.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// normalizeEmail returns the one form in which addresses are stored and compared:
// trimmed, lower case, the domain in its ASCII form. If s is no address that can be
// invited, reason says why; it never repeats s.
//
// Clerk documents lower-casing for its own comparisons. It says nothing of quoted
// or non-ASCII local parts, so these are refused instead of being stored in a form
// that Clerk might not recognise.
func normalizeEmail(s string) (email, reason string) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", "is empty"
	case len(s) > 1024:
		return "", "is longer than 254 bytes"
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || strings.Contains(domain, "@") {
		return "", "is not one address of the form name@example.com"
	}
	if local == "" || len(local) > 64 {
		return "", "has an empty part, or one over 64 bytes, before the @"
	}
	for i := range len(local) {
		c := local[i]
		atom := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
		dot := c == '.' && i > 0 && i < len(local)-1 && local[i-1] != '.'
		if !atom && !dot {
			return "", "has a character or a dot before the @ that is not supported there"
		}
	}
	local = strings.ToLower(local) // not before the check: two letters outside ASCII have ASCII ones as lower case
	domain, err := domains.ToASCII(domain)
	// Some domains get an ASCII form that is itself refused (invalid UTF-8, letters that
	// become right-to-left ones): such a form would match nothing ever after.
	again, err2 := domains.ToASCII(domain)
	if err != nil || err2 != nil || again != domain || !strings.Contains(domain, ".") || strings.HasSuffix(domain, ".") {
		return "", "has no valid domain after the @"
	}
	if len(local)+1+len(domain) > 254 {
		return "", "is longer than 254 bytes"
	}
	return local + "@" + domain, ""
}

// sameEmail reports whether an address in Clerk's writing is the normalised one.
func sameEmail(theirs, normalized string) bool {
	n, reason := normalizeEmail(theirs)
	return reason == "" && n == normalized
}

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

// normalized returns r in the form in which it is stored, or an *InvalidParamsError.
func (r Ref) normalized() (Ref, error) {
	if r.TenantID == "" {
		return Ref{}, &InvalidParamsError{"TenantID", "is empty"}
	}
	if reason := checkText(r.TenantID, 255); reason != "" {
		return Ref{}, &InvalidParamsError{"TenantID", reason}
	}
	email, reason := normalizeEmail(r.Email)
	if reason != "" {
		return Ref{}, &InvalidParamsError{"Email", reason}
	}
	return Ref{r.TenantID, email}, nil
}

func checkText(s string, limit int) string {
	switch {
	case len(s) > limit:
		return fmt.Sprintf("is longer than %d bytes", limit)
	case !utf8.ValidString(s):
		return "is not valid UTF-8"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "has a control character"
	}
	return ""
}

func checkRedirectURL(s string) string {
	if s == "" {
		return ""
	}
	if reason := checkText(s, 2048); reason != "" {
		return reason
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "is not an absolute http or https URL"
	}
	return ""
}

func checkDays(n int) string {
	if n < 1 || n > 365 {
		return "is not 1 to 365"
	}
	return ""
}

var templateSlug = regexp.MustCompile(`^[a-z0-9_-]{0,64}$`)

func checkTemplate(s string) string {
	if !templateSlug.MatchString(s) {
		return "is not a template_slug of Clerk's, as in \"invitation\""
	}
	return ""
}
