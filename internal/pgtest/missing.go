package pgtest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Missing ends a test that needs something this machine does not have. name is a short word for it ("postgres"), and reason says
// what to install. If the comma-separated list CLERKINVITE_REQUIRE contains the name, the test fails; otherwise it is skipped.
// Without the variable, the test fails if CI is true, because a CI that skips most tests must not show success.
func Missing(t testing.TB, name, reason string) {
	t.Helper()
	if required(name) {
		t.Fatalf("%q is missing, and CLERKINVITE_REQUIRE or CI requires it: %s", name, reason)
	}
	t.Skip("SKIPPED: " + reason)
}

func required(what string) bool {
	list, ok := os.LookupEnv("CLERKINVITE_REQUIRE")
	if !ok {
		ci, _ := strconv.ParseBool(os.Getenv("CI"))
		return ci
	}
	return slices.ContainsFunc(strings.Split(list, ","), func(name string) bool {
		return strings.TrimSpace(name) == what
	})
}
