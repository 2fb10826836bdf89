package sqlitestore_test

import (
	"testing"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/organizationtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// The scenarios of organizations, with the real adapter over HTTP.
func TestOrganization(t *testing.T) {
	t.Parallel()
	organizationtest.Run(t, func(t *testing.T, o testkit.Options, test func(t *testing.T, b *testkit.Rig)) {
		t.Helper()
		clerk := clerkinvitetest.NewClerk()
		test(t, testkit.New(t, o, clerk, testkit.Adapter(t, testkit.Serve(t, clerk)), newStore(t)))
	})
}
