package clerkinvite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/clerkinvite/clerkinvite/internal/scrub"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// domains is idna.Lookup that also rejects empty labels and labels over 63 bytes.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// normalizeEmail returns the form in which addresses are stored and compared: trimmed,
// lower case, the domain in ASCII. If s is not an address that can be invited, it returns
// the reason, which never repeats s.
//
// Clerk documents that it compares in lower case. It does not document quoted or non-ASCII
// local parts, so they are rejected: Clerk might not recognise the stored form.
func normalizeEmail(s string) (email, reason string) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", "must not be empty"
	case len(s) > 1024:
		return "", "must be at most 254 bytes"
	}
	local, domain, ok := strings.Cut(s, "@")
	if !ok || strings.Contains(domain, "@") {
		return "", "must be a single address such as name@example.com"
	}
	if local == "" || len(local) > 64 {
		return "", "must have 1 to 64 bytes before the @"
	}
	for i := range len(local) {
		c := local[i]
		atom := c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
		dot := c == '.' && i > 0 && i < len(local)-1 && local[i-1] != '.'
		if !atom && !dot {
			return "", "must have only letters A to Z, digits, !#$%&'*+-/=?^_`{|}~ and single dots before the @"
		}
	}
	if encodedWord.MatchString(local) {
		return "", "must not be an encoded word"
	}
	local = strings.ToLower(local) // after the check, because ToLower maps two non-ASCII letters to ASCII
	domain, ok = normalizeDomain(domain)
	if !ok {
		return "", "must have a valid domain after the @"
	}
	if len(local)+1+len(domain) > 254 {
		return "", "must be at most 254 bytes"
	}
	return local + "@" + domain, ""
}

// normalizePrefix returns the normalised form of s, a prefix of addresses, or the reason why no address can
// begin with s.
func normalizePrefix(s string) (prefix, reason string) {
	if s = strings.TrimSpace(s); len(s) > 1024 {
		return "", "must be at most 254 bytes"
	}
	local, domain, ok := strings.Cut(s, "@")
	prefix = strings.ToLower(local)
	if ok {
		// The last label may be incomplete, so each is converted separately. A label that is not valid
		// matches nothing.
		labels := strings.Split(domain, ".")
		for i, label := range labels {
			labels[i] = strings.ToLower(label)
			if ascii, err := domains.ToASCII(label); err == nil && strings.ContainsFunc(label, func(r rune) bool { return r >= utf8.RuneSelf }) {
				labels[i] = ascii
			}
		}
		prefix += "@" + strings.Join(labels, ".")
	}
	return prefix, checkText(prefix, 254)
}

// encodedWord finds RFC 2047 encoded words, which some mail systems decode into another address.
var encodedWord = regexp.MustCompile(`=\?[^?]*\?[^?]*\?`)

// hostName matches a domain of at least two labels. The idna tables of some Go toolchains accept more.
var hostName = regexp.MustCompile(`^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

// normalizeDomain returns the ASCII form of a domain. The result does not depend on the Go toolchain.
func normalizeDomain(domain string) (ascii string, ok bool) {
	ascii, err := domains.ToASCII(domain)
	if err != nil || !hostName.MatchString(ascii) {
		return "", false
	}
	// The ASCII form of some domains is itself rejected (invalid UTF-8, letters that become
	// right-to-left) and would never match anything.
	again, err := domains.ToASCII(ascii)
	if err != nil || again != ascii {
		return "", false
	}
	shown, err := domains.ToUnicode(ascii)
	if err != nil || strings.ContainsFunc(domain+shown, isUnstable) {
		return "", false
	}
	// No top-level domain begins with a digit, and software could mistake such a domain for an IP address.
	top, _ := utf8.DecodeRuneInString(shown[strings.LastIndexByte(shown, '.')+1:])
	return ascii, unicode.IsLetter(top)
}

func isUnstable(r rune) bool { return unicode.Is(unstableDomain, r) }

// formsOf returns the forms in which Clerk may store a normalised address: itself and, if it
// differs, the one with the domain in Unicode.
func formsOf(email string) []string {
	local, domain, _ := strings.Cut(email, "@")
	shown, err := domains.ToUnicode(domain)
	if form := local + "@" + shown; err == nil && form != email && sameEmail(form, email) {
		return []string{email, form}
	}
	return []string{email}
}

// sameEmail reports whether an address as Clerk writes it has this normalised form.
func sameEmail(address, normalized string) bool {
	n, reason := normalizeEmail(address)
	return reason == "" && n == normalized
}

const (
	maxMetadata  = 8 << 10 // Clerk: public_metadata of a user is at most 8 KB
	maxData      = 64 << 10
	maxJSONDepth = 128
	maxNumber    = 1000 // characters without an exponent
)

// encodeMetadata returns metadata as JSON with sorted keys, or nil if it is empty. The
// limit applies to the size with the library's marker, which is what Clerk receives.
func encodeMetadata(metadata map[string]any, m mark) (json.RawMessage, string) {
	if len(metadata) == 0 {
		return nil, ""
	}
	for key := range metadata {
		if strings.EqualFold(key, metadataKey) {
			return nil, `must not contain the key "clerkinvite", which the library uses`
		}
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		return nil, "must be encodable as JSON"
	}
	// Marshal writes invalid UTF-8 as this escape, and a real U+FFFD unescaped.
	if hasEscape(b, func(_, unit int) bool { return unit == utf8.RuneError }) {
		return nil, "must be valid UTF-8"
	}
	if reason := checkJSON(b); reason != "" {
		return nil, reason
	}
	if len(withMark(b, m)) > maxMetadata {
		return nil, "must be at most 8 KiB as JSON"
	}
	return b, ""
}

// withMark returns the metadata, a JSON object or nil, with the library's marker added.
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
		return "must be at most 64 KiB"
	}
	if reason := checkJSON(data); reason != "" {
		return reason
	}
	if jsonbSize(data) > maxData {
		return "must be at most 64 KiB as PostgreSQL stores it, with a space after each comma and colon and all digits of numbers"
	}
	return ""
}

// jsonbSize returns the length of valid JSON after PostgreSQL has converted it to jsonb and back to text, or
// more if a key occurs twice. A value that was read from the table must not be too large to be written again.
func jsonbSize(b []byte) int {
	size := 0
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == ',' || c == ':':
			size += 2
			i++
		case c == '"':
			n := 1 + stringLength(b[i+1:])
			var s string
			_ = json.Unmarshal(b[i:i+n], &s)
			size += jsonbStringSize(s)
			i += n
		case c == '-' || c >= '0' && c <= '9':
			n := numberLength(b[i:])
			size += numericSize(string(b[i : i+n]))
			i += n
		default: // brackets, true, false, null
			size++
			i++
		}
	}
	return size
}

// stringLength returns the length of a JSON string after its first quote.
func stringLength(b []byte) int {
	for i := 0; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

func numberLength(b []byte) int {
	i := 0
	for i < len(b) && strings.IndexByte("+-.0123456789eE", b[i]) >= 0 {
		i++
	}
	return i
}

func jsonbStringSize(s string) int {
	size := len(s) + len(`""`)
	for i := range len(s) {
		switch c := s[i]; {
		case strings.IndexByte("\"\\\b\f\n\r\t", c) >= 0:
			size += len(`\n`) - 1
		case c < ' ':
			size += len(`\u0000`) - 1
		}
	}
	return size
}

// numericSize returns the length of a JSON number after PostgreSQL has converted it to numeric and back. The
// text then has no exponent, and keeps the trailing zeros of a fraction.
func numericSize(number string) int {
	mantissa, negative := strings.CutPrefix(number, "-")
	exponent := 0
	if i := strings.IndexAny(mantissa, "eE"); i >= 0 {
		exponent, _ = strconv.Atoi(mantissa[i+1:])
		mantissa = mantissa[:i]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	significant := strings.TrimLeft(whole+fraction, "0")
	size := 1
	if significant != "" {
		size = max(1, len(significant)-len(fraction)+exponent)
		if negative {
			size++
		}
	}
	if scale := len(fraction) - exponent; scale > 0 {
		size += len(".") + scale
	}
	return size
}

// checkJSON returns why PostgreSQL cannot store b as jsonb, or "". PostgreSQL rejects more
// than RFC 8259: NUL, half a surrogate pair, numbers that its numeric type cannot
// represent, and very deep nesting.
func checkJSON(b []byte) string {
	if !utf8.Valid(b) {
		return "must be valid UTF-8"
	}
	if !json.Valid(b) {
		return "must be a single JSON value"
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
			return "must be a single JSON value"
		}
		switch tok := tok.(type) {
		case json.Delim:
			if tok == '{' || tok == '[' {
				depth++
			} else {
				depth--
			}
			if depth > maxJSONDepth {
				return "must be nested at most 128 levels deep"
			}
		case json.Number:
			// PostgreSQL prints it without an exponent, and that form must be valid, too.
			if _, err := strconv.ParseFloat(tok.String(), 64); err != nil || !smallExponent(tok.String()) || numericSize(tok.String()) > maxNumber {
				return "must not contain a number out of range"
			}
		}
	}
	if badEscape(b) {
		return `must not contain \u0000 or half a surrogate pair, which PostgreSQL cannot store`
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

// badEscape reports whether valid JSON contains \u0000 or an unpaired surrogate.
func badEscape(b []byte) bool {
	high := -1 // where the second half of a pair must begin, or -1
	bad := hasEscape(b, func(at, unit int) bool {
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

// hasEscape reports whether match accepts the index and the code unit of any escape \uXXXX in valid JSON.
func hasEscape(b []byte, match func(at, unit int) bool) bool {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		if b[i+1] != 'u' {
			i++ // skip the escaped byte, which may be a backslash
			continue
		}
		unit, _ := strconv.ParseUint(string(b[i+2:i+6]), 16, 16)
		if match(i, int(unit)) {
			return true
		}
		i += len(`u0000`)
	}
	return false
}

// normalized returns r as it is stored, or an *InvalidParamsError.
func (r Ref) normalized() (Ref, error) {
	switch {
	case r.Email != "" && r.ID == "" && r.ClerkUserID == "":
		return addressRef(r.TenantID, r.Email)
	case r.ID != "" && r.Email == "" && r.ClerkUserID == "":
		if !storeutil.IsUUID(r.ID) {
			return Ref{}, &InvalidParamsError{"ID", "must be a UUID"}
		}
		r.ID = strings.ToLower(r.ID)
	case r.ClerkUserID != "" && r.Email == "" && r.ID == "":
		if !clerkID.MatchString(r.ClerkUserID) {
			return Ref{}, &InvalidParamsError{"ClerkUserID", "must be a Clerk user's ID (user_…), or pending_ and an invitation's ID"}
		}
	default:
		return Ref{}, &InvalidParamsError{"Ref", "must have exactly one of Email, ID and ClerkUserID"}
	}
	return r, checkTenant(r.TenantID)
}

// addressRef returns the normalised Ref of an address, or an *InvalidParamsError.
func addressRef(tenantID, email string) (Ref, error) {
	if err := checkTenant(tenantID); err != nil {
		return Ref{}, err
	}
	email, reason := normalizeEmail(email)
	if reason != "" {
		return Ref{}, &InvalidParamsError{"Email", reason}
	}
	return Ref{TenantID: tenantID, Email: email}, nil
}

// checkTenant returns an *InvalidParamsError, or nil.
func checkTenant(tenantID string) error {
	if tenantID == "" {
		return &InvalidParamsError{"TenantID", "must not be empty"}
	}
	if reason := checkText(tenantID, 255); reason != "" {
		return &InvalidParamsError{"TenantID", reason}
	}
	return nil
}

// checkText returns what is wrong with an ID or a name, or "".
func checkText(s string, limit int) string {
	switch {
	case len(s) > limit:
		return fmt.Sprintf("must be at most %d bytes", limit)
	case !utf8.ValidString(s):
		return "must be valid UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "must not contain control characters"
	case strings.ContainsFunc(s, scrub.Invisible):
		return "must not contain invisible or format characters"
	case s != strings.TrimSpace(s):
		return "must not begin or end with white space"
	}
	return ""
}

// browserSchemes matches the schemes that browsers, mail programs and operating systems handle themselves.
// Some of them run code, open another URL or install an app. Links to a host's app use other schemes.
var browserSchemes = regexp.MustCompile(`^(about|android-app|blob|chrome|content|data|devtools|edge|feed|file|filesystem|ftps?|googlechromes?|gopher|intent|` +
	`itms-[a-z]+|jar|javascript|jscript|ldaps?|livescript|mailto|mhtml|microsoft-edge|mocha|ms-[a-z-]+|news|resource|search-ms|sftp|smb|sms|smsto|ssh|tel|telnet|` +
	`urn|vbs|vbscript|view-source|wss?|x-javascript|[a-z-]+-extension|(chrome|microsoft-edge)-[a-z-]+)$`)

// plainURL has the characters of RFC 3986. Browsers treat others, such as a backslash, in different ways.
var plainURL = regexp.MustCompile(`^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*$`)

func checkRedirectURL(s string) string {
	if s == "" {
		return ""
	}
	if reason := checkText(s, 2048); reason != "" {
		return reason
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
	case u.Scheme == "http" || u.Scheme == "https":
		if port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16); u.Hostname() != "" && err == nil && port > 0 {
			return ""
		}
	case !plainURL.MatchString(s):
	case u.Scheme == "": // two slashes begin another host
		if strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") {
			return ""
		}
	case len(u.Scheme) > 1 && strings.HasPrefix(s[len(u.Scheme):], ":/") && !browserSchemes.MatchString(u.Scheme):
		return ""
	}
	return "must be an http or https URL, the URL of an app such as myapp://accept, or a path that begins with /"
}

func checkDays(n int) string {
	if n < 1 || n > 365 {
		return "must be 1 to 365"
	}
	return ""
}

var templateSlug = regexp.MustCompile(`^[a-z0-9_-]{0,64}$`)

func checkTemplate(s string) string {
	if !templateSlug.MatchString(s) {
		return `must be a Clerk template slug such as "invitation"`
	}
	return ""
}

// unstableDomain contains the code points that Go toolchains treat differently in a domain, because
// x/net/idna uses a different Unicode version for each. One toolchain accepts such a code point; another
// one rejects it, or maps it to a different domain. The two domains can have different owners, as for
// U+1E9E, the capital of a letter that domains distinguish from "ss". A test compares all mappings with pinned values, and fails on a
// toolchain with a new Unicode version.
var unstableDomain = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x04c0, 0x04c0, 1}, {0x088f, 0x0897, 1}, {0x0c5c, 0x0c5c, 1}, {0x0cdc, 0x0cdc, 1},
		{0x10a0, 0x10c5, 1}, {0x115f, 0x1160, 1}, {0x17b4, 0x17b5, 1}, {0x1806, 0x1806, 1},
		{0x180e, 0x180e, 1}, {0x1acf, 0x1aeb, 1}, {0x1b4e, 0x1b4f, 1}, {0x1b7f, 0x1b7f, 1},
		{0x1c89, 0x1c8a, 1}, {0x1e9e, 0x1e9e, 1}, {0x2061, 0x2063, 1}, {0x206a, 0x206f, 1},
		{0x20c1, 0x20c1, 1}, {0x2132, 0x2132, 1}, {0x2183, 0x2183, 1}, {0x2260, 0x2260, 1},
		{0x226e, 0x226f, 1}, {0x2427, 0x2429, 1}, {0x2b96, 0x2b96, 1}, {0x3164, 0x3164, 1},
		{0x31e4, 0x31e5, 1}, {0xa7cb, 0xa7cf, 1}, {0xa7d2, 0xa7d2, 1}, {0xa7d4, 0xa7d4, 1},
		{0xa7da, 0xa7f1, 1}, {0xfbc3, 0xfbd2, 1}, {0xfd90, 0xfd91, 1}, {0xfdc8, 0xfdce, 1},
		{0xffa0, 0xffa0, 1},
	},
	R32: []unicode.Range32{
		{0x105c0, 0x105f3, 1}, {0x10940, 0x10959, 1}, {0x10d40, 0x10d8f, 1}, {0x10ec2, 0x10efc, 1},
		{0x11380, 0x113e2, 1}, {0x116d0, 0x116e3, 1}, {0x1171e, 0x1171e, 1}, {0x11b60, 0x11bf9, 1},
		{0x11db0, 0x11de9, 1}, {0x11f5a, 0x11f5a, 1}, {0x13460, 0x143fa, 1}, {0x16100, 0x16139, 1},
		{0x16d40, 0x16d79, 1}, {0x16ea0, 0x16ed3, 1}, {0x16ff2, 0x16ff6, 1}, {0x187f8, 0x187ff, 1},
		{0x18cff, 0x18cff, 1}, {0x18d09, 0x18df2, 1}, {0x1cc00, 0x1cef0, 1}, {0x1d173, 0x1d17a, 1},
		{0x1e5d0, 0x1e6ff, 1}, {0x1f6d8, 0x1f6d8, 1}, {0x1f777, 0x1f77a, 1}, {0x1f8b2, 0x1f8d8, 1},
		{0x1fa54, 0x1fa57, 1}, {0x1fa89, 0x1fa8f, 1}, {0x1fabe, 0x1fabe, 1}, {0x1fac6, 0x1facd, 1},
		{0x1fadc, 0x1fadf, 1}, {0x1fae9, 0x1faef, 1}, {0x1fbcb, 0x1fbef, 1}, {0x1fbfa, 0x1fbfa, 1},
		{0x2b73a, 0x2b73f, 1}, {0x2cea2, 0x2cead, 1}, {0x2ebf0, 0x2ee5d, 1}, {0x2f868, 0x2f868, 1},
		{0x2f874, 0x2f874, 1}, {0x2f91f, 0x2f91f, 1}, {0x2f95f, 0x2f95f, 1}, {0x2f9bf, 0x2f9bf, 1},
		{0x323b0, 0x33479, 1},
	},
}
