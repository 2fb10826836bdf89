package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// skipped counts, for Main, what Missing has skipped.
var skipped struct {
	sync.Mutex

	counts map[string]int
}

// Missing ends a test that lacks something this machine does not have: what is a short word for it ("postgres"), reason says
// what to do. The test fails if the comma separated list CLERKINVITE_REQUIRE names what, as in CI; otherwise it is skipped.
//
// A skip is easily overlooked. For a package that passes, "go test ./..." shows nothing but "ok": neither the reason nor anything the
// test binary prints. So the skip is also appended to the file CLERKINVITE_SKIPPED, if that is set: "make test" sets it and
// sums it up at the end. Main's own summary is seen under -v and when a single package is tested from its directory.
func Missing(t testing.TB, what, reason string) {
	t.Helper()
	if required(what) {
		t.Fatalf("CLERKINVITE_REQUIRE names %q: %s", what, reason)
	}
	skipped.Lock()
	if skipped.counts == nil {
		skipped.counts = map[string]int{}
	}
	skipped.counts[reason]++
	skipped.Unlock()
	if path := os.Getenv("CLERKINVITE_SKIPPED"); path != "" {
		if err := appendLine(path, fmt.Sprintf("%s\t%s %s", reason, filepath.Base(os.Args[0]), t.Name())); err != nil {
			t.Errorf("CLERKINVITE_SKIPPED: %v", err)
		}
	}
	t.Skip("SKIPPED: " + reason)
}

func required(what string) bool {
	return slices.ContainsFunc(strings.Split(os.Getenv("CLERKINVITE_REQUIRE"), ","), func(name string) bool {
		return strings.TrimSpace(name) == what
	})
}

// skippedSummary says how many tests were skipped for which reason, and forgets it.
func skippedSummary() []string {
	skipped.Lock()
	defer skipped.Unlock()
	var lines []string
	for reason, n := range skipped.counts {
		lines = append(lines, fmt.Sprintf("pgtest: SKIPPED %d tests: %s", n, reason))
	}
	skipped.counts = nil
	slices.Sort(lines)

	return lines
}

// appendLine writes the line at once: the test binaries of all packages append to the same file.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}

	return err
}
