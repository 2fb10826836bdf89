package protocol

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/tally"
)

// Whatever two or three actors do with one member, in any order, whichever actor dies and
// whichever response is lost: no second email, no dead link, nothing due forever.
func TestEveryOrderOfEventsEndsWell(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "complete exploration of the protocol's model")
	states, steps := 0, 0
	for _, x := range exploreAll() {
		t.Logf("%-18s %8d states %9d steps", x.Name, x.States, x.Steps)
		require.Empty(t, x.Bad, "%s\n%s", x.Name, x.Tell(x.Trace))
		states, steps = states+x.States, steps+x.Steps
	}
	row.Done(fmt.Sprintf("%d states in %d configurations", states, len(exploreAll())),
		"0 bad traces", fmt.Sprintf("%d steps", steps))
}

// needed has the exploration that finds a bad trace without each rule.
var needed = []struct {
	rule Rule
	in   string
	bad  string
}{
	{LookFirst, "dashboard", "recovering: two emails for one send"},
	{LookRevoked, "dashboard", "recovering: two emails for one send"},
	{Adopt, "deliver", "recovering: two emails for one send"},
	{IgnoreOnlySeen, "deliver", "two emails for one send"},
	{KeepLease, "foreign", "two emails for one send"},
	{HonourLease, "foreign", "two emails for one send"},
	{ClaimByVersion, "foreign", "two emails for one send"},
	{FreshCreate, "foreign", "two emails for one send"},
	{WriteByVersion, "resend", "an invitation is left over for good"},
	{GiveUpOwn, "foreign", "two emails for one send"},
	{SettleAgain, "deliver", "revoked without a caller"},
	{KeepNamed, "deliver", "the invitation that the row names is revoked as if it were left over"},
	{RevokeUnwanted, "revoke", "an older invitation is left over although nothing went wrong"},
	{SweepLater, "resend", "an older invitation is left over although nothing went wrong"},
	{ReconcileLeft, "revoke", "an invitation is left over for good"},
	{ReconcileEnded, "dashboard", "the row names an invitation that is revoked"},
	{FindFirst, "foreign accepted", "recovering: an email to a person who had joined"},
	{FindAgain, "foreign accepted", "an email to a person who had joined"},
	{WithdrawLook, "revoke", "withdrawn, but its link works"},
	{RevokeFirst, "organization resend", "due for ever"},
	{SendAccepted, "organization elsewhere", "a send without an email"},
	{AdoptForeign, "organization", "due for ever"},
	{ProveMember, "organization accept", "recovering: active without a proof"},
	{ResendsWait, "organization resend", "revoked without a caller"},
	{TryOnce, "once", "recovering: an invitation is tried twice"},
}

// Without any one rule, a trace ends badly. With -v the
// shortest one is printed.
func TestEachRuleClosesATrace(t *testing.T) {
	t.Parallel()
	for _, n := range needed {
		t.Run(string(n.rule), func(t *testing.T) {
			t.Parallel()
			c := named(n.in, n.rule)
			found := c.Explore(nil)
			t.Logf("without %q, after %d states: %s\n%s", n.rule, found.States, found.Bad, c.Tell(found.Trace))
			require.Equal(t, n.bad, found.Bad)
		})
	}
}

// These rules prevent no bad trace of the model.
//
// A second send that is created without a look is rejected while the first is open,
// and looks then; looking first saves a rejected request. Listing Clerk before the rows are read is
// needed only if a row can start to refer to an existing invitation; the rule to keep
// invitations that are newer than the row is enough for one
// member, so the order is a second safeguard.
func TestRulesThatCloseNoTrace(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	for _, rule := range []Rule{LookSecondSend, ClerkThenRows} {
		for _, in := range []string{"resend dashboard", "revoke resend", "reconcile"} {
			c := named(in, rule)
			found := c.Explore(nil)
			require.Empty(t, found.Bad, "%s without %q\n%s", in, rule, c.Tell(found.Trace))
		}
	}
}

// The exceptions from the promises occur in the model, and only under their conditions.
func TestExceptionsAreThere(t *testing.T) {
	t.Parallel()
	for exception, in := range map[Exception]string{LateIgnoring: "foreign late", LateWithdrawn: "dashboard late"} {
		for _, x := range exploreAll() {
			trace := x.shown[exception]
			switch {
			case x.Name == in:
				require.NotEmpty(t, trace)
				t.Logf("%s\n%s", x.Name, x.Tell(trace))
				require.NoError(t, play(x.Config, memory(), trace), "the library does the same")
			case !x.Late:
				require.Empty(t, trace, "%s: a second email although no create was late\n%s", x.Name, x.Tell(trace))
			}
		}
	}
}
