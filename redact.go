package clerkinvite

import (
	"fmt"
	"io"
	"log/slog"
	"regexp"
)

// formatLogValue is the body of every Format method: the log value, for any verb,
// so that what must not be logged cannot be printed by accident either.
func formatLogValue(w io.Writer, name string, v slog.Value) {
	_, _ = fmt.Fprint(w, name, v.Resolve())
}

var (
	addressLike = regexp.MustCompile(`(?:"[^"]*"|[^\s"<>(),;:]+)(?:@|%40|＠)[^\s"'<>(),;:]+`)
	urlLike     = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://\S+`)
	keyLike     = regexp.MustCompile(`(?:sk|pk|rk)_(?:live|test)_\S+|whsec_\S+`)
)

// scrub takes addresses, URLs and keys out of text that others wrote.
func scrub(s string) string {
	s = urlLike.ReplaceAllString(s, "[url]")
	s = addressLike.ReplaceAllString(s, "[address]")
	return keyLike.ReplaceAllString(s, "[key]")
}
