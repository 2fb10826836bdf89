// Package scrub takes what must not be logged out of text that others wrote.
package scrub

import "regexp"

var (
	addressLike = regexp.MustCompile(`(?:"[^"]*"|[^\s"<>(),;:]+)(?:@|%40|＠)[^\s"'<>(),;:]+`)
	urlLike     = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://\S+`)
	keyLike     = regexp.MustCompile(`(?:sk|pk|rk)_(?:live|test)_\S+|whsec_\S+`)
)

// Text returns s without addresses, URLs and keys.
func Text(s string) string {
	s = urlLike.ReplaceAllString(s, "[url]")
	s = addressLike.ReplaceAllString(s, "[address]")
	return keyLike.ReplaceAllString(s, "[key]")
}
