package clerkinvite

import (
	"strings"

	"golang.org/x/net/idna"
)

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
	local = strings.ToLower(local)
	if local == "" || len(local) > 64 {
		return "", "has an empty part, or one over 64 bytes, before the @"
	}
	for i := range len(local) {
		c := local[i]
		atom := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
		dot := c == '.' && i > 0 && i < len(local)-1 && local[i-1] != '.'
		if !atom && !dot {
			return "", "has a character or a dot before the @ that is not supported there"
		}
	}
	domain, err := idna.Lookup.ToASCII(domain)
	if err != nil || !strings.Contains(strings.Trim(domain, "."), ".") || strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, ".") {
		return "", "has no valid domain after the @"
	}
	domain = strings.ToLower(domain)
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
