package doccheck_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// TestMain runs the tests in the repository's root, where the pages are.
func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(pgtest.Main(m))
}
