package attacks_test

import (
	"os"
	"testing"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// root is the repository's root: some attacks are derived from the library's source.
const root = "../.."

// TestMain is also the program of the child processes: another process of the host.
func TestMain(m *testing.M) {
	if mode := os.Getenv("CLERKINVITE_TEST_CHILD"); mode != "" {
		child(mode)
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}
