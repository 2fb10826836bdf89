package modeltest

import (
	"testing"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) clerkinvite.Store { return clerkinvitetest.NewMemoryStore() }, nil)
}
