// Package scrub removes addresses, links and keys from text for logs, and formats values
// without them.
package scrub

import (
	"regexp"
	"strings"
	"unicode"
)

var (
	addressLike = regexp.MustCompile(`(?:"[^"]*"|[^\s"<>(),;:]+)(?:@|%(?:25)*40|＠|﹫|\\u0040)[^\s"'<>(),;:]+`)
	ticketLike  = regexp.MustCompile(`(?i)ticket=[^\s"'<>]+`) // in a URL without its scheme
	urlLike     = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://\S+`)
	keyLike     = regexp.MustCompile(`(?:sk|pk|rk)_(?:live|test)_\S+|whsec_\S+|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?`) // the last one is a JSON Web Token, such as a ticket
)

// Text returns s without addresses, URLs, tickets and keys.
func Text(s string) string {
	s = urlLike.ReplaceAllString(s, "[url]")
	s = ticketLike.ReplaceAllString(s, "[ticket]")
	s = addressLike.ReplaceAllString(s, "[address]")
	return keyLike.ReplaceAllString(s, "[key]")
}

// Line is Text on one line, so that s cannot start a line in a log. See Plain.
func Line(s string) string { return Plain(Text(s)) }

// Plain returns s for a terminal, a log or a page: control characters and characters that are
// invisible or change the direction of text become spaces.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || Invisible(r) {
			return ' '
		}
		return r
	}, s)
}

// Invisible reports whether r changes the text around it, shows as nothing, or shows as a space
// without being one: format characters, which include those for directions, separators, fillers,
// variation selectors and blank letters.
func Invisible(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Z, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) && r != ' ' ||
		strings.ContainsRune(blank, r)
}

// blank has the characters that fonts show as nothing although Unicode classes them as visible.
const blank = "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
