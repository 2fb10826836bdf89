package testkit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// Faults returns every way in which a call can fail, before and after it took effect.
func Faults(call clerkinvitetest.Call) []clerkinvitetest.Fault {
	times := 0
	if strings.HasPrefix(string(call), "GET ") {
		times = 3 // the adapter asks three times
	}
	var all []clerkinvitetest.Fault
	for _, kind := range clerkinvitetest.Kinds() {
		for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
			all = append(all, clerkinvitetest.Fault{Call: call, When: when, Kind: kind, Times: times})
		}
	}
	for _, answer := range []clerkinvitetest.Fault{
		{Status: 401, Code: "clerk_key_invalid"}, {Status: 402, Code: "payment_required"}, {Status: 403, Code: "user_quota_exceeded"},
		{Status: 400, Code: "dev_monthly_email_limit_exceeded"}, {Status: 409, Code: "resource_locked"}, {Status: 408},
		{Status: 429, Code: "too_many_requests", RetryAfter: time.Minute}, {Status: 429}, {Status: 422, Code: "form_param_unknown"},
		{Status: 500, Code: "internal_clerk_error"},
	} {
		answer.Call, answer.When, answer.Kind, answer.Times = call, clerkinvitetest.Before, clerkinvitetest.Response, times
		all = append(all, answer)
	}
	return all
}

// FaultName describes a fault in the name of a subtest.
func FaultName(f clerkinvitetest.Fault) string {
	if f.Status != 0 {
		return fmt.Sprintf("%v %d %s", f.When, f.Status, f.Code)
	}
	return fmt.Sprintf("%v %v", f.When, f.Kind)
}

// SecondSend invites Ada and waits until the invitation has expired, so that her next one is the second send.
func SecondSend(t *testing.T, b *Rig) {
	t.Helper()
	b.Clerk.SetNow(NewClock().Now) // Clerk's clock stands still
	b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(31 * 24 * time.Hour)
}

// LimitCreates makes Clerk reject the next create of either endpoint.
func LimitCreates(b *Rig, retryAfter time.Duration) {
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: retryAfter})
	}
}

// RequireRetryAfter requires that the error says how long to wait.
func RequireRetryAfter(t *testing.T, want time.Duration, err error) {
	t.Helper()
	require.Error(t, err)
	got, ok := clerkinvite.RetryAfter(err)
	require.True(t, ok)
	require.Equal(t, want, got, "%v", err)
}
