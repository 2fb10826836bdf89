// Package scrub takes what must not be logged out of text that others wrote.
package scrub

import (
	"regexp"
	"strings"
	"unicode"
)

var (
	addressLike = regexp.MustCompile(`(?:"[^"]*"|[^\s"<>(),;:]+)(?:@|%(?:25)*40|＠|﹫|\\u0040)[^\s"'<>(),;:]+`)
	ticketLike  = regexp.MustCompile(`(?i)ticket=[^\s"'<>]+`) // of a URL without its scheme
	urlLike     = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://\S+`)
	keyLike     = regexp.MustCompile(`(?:sk|pk|rk)_(?:live|test)_\S+|whsec_\S+|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?`) // and a JSON Web Token: a ticket by itself
)

// Text returns s without addresses, URLs, tickets and keys.
func Text(s string) string {
	s = urlLike.ReplaceAllString(s, "[url]")
	s = ticketLike.ReplaceAllString(s, "[ticket]")
	s = addressLike.ReplaceAllString(s, "[address]")
	return keyLike.ReplaceAllString(s, "[key]")
}

// Line is Text in one line: whoever wrote s begins no line of a log of their own.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, Text(s))
}
