package clerkinvite

import (
	"strings"

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
