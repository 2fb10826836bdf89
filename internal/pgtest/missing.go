package pgtest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Missing ends a test that needs something this machine does not have. name is a short word for it ("postgres"), and reason says
// what to install. The test fails if the comma-separated list CLERKINVITE_REQUIRE contains the name, as in CI; otherwise it is
// skipped.
func Missing(t testing.TB, name, reason string) {
	t.Helper()
	if required(name) {
		t.Fatalf("CLERKINVITE_REQUIRE names %q: %s", name, reason)
	}
	t.Skip("SKIPPED: " + reason)
}

func required(what string) bool {
	return slices.ContainsFunc(strings.Split(os.Getenv("CLERKINVITE_REQUIRE"), ","), func(name string) bool {
		return strings.TrimSpace(name) == what
	})
}
