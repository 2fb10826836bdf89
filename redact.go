package clerkinvite

import (
	"fmt"
	"io"
	"log/slog"
)

// formatLogValue is the body of every Format method: the log value, for any verb,
// so that what must not be logged cannot be printed by accident either.
func formatLogValue(w io.Writer, name string, v slog.Value) {
	_, _ = fmt.Fprint(w, name, v.Resolve())
}
