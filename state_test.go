package clerkinvite

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var statuses = Statuses()

// updates counts what reaches the store.
type updates struct {
	Store
	changes []Change
}

func (u *updates) Update(_ context.Context, changes []Change) ([]Result, error) {
	u.changes = append(u.changes, changes...)
	results := make([]Result, len(changes))
	for i, c := range changes {
		results[i].Member = c.New
	}
	return results, nil
}

// A move that is not in the table never reaches the store, and stops no other.
func TestApplyAsksTheTable(t *testing.T) {
	t.Parallel()
	store := &updates{}
	s, err := New(Config{API: struct{ ClerkAPI }{}, Store: store})
	require.NoError(t, err)
	var changes []Change
	for _, from := range statuses {
		for _, to := range statuses {
			changes = append(changes, Change{&Member{Status: from}, &Member{Status: to}})
		}
	}
	results, err := s.apply(t.Context(), store, changes)
	require.NoError(t, err)
	for i, c := range changes {
		if c.Old.Status == c.New.Status || slices.Contains(transitions[c.Old.Status], c.New.Status) {
			require.NoError(t, results[i].Err)
			require.Contains(t, store.changes, c)
			continue
		}
		var refused *TransitionError
		require.ErrorAs(t, results[i].Err, &refused)
		require.Equal(t, &TransitionError{c.Old.Status, c.New.Status}, refused)
		require.NotContains(t, store.changes, c)
	}
	require.Equal(t, []Status{StatusRemoved}, transitions[StatusActive])
	for _, over := range []Status{StatusFailed, StatusRevoked, StatusRemoved} {
		require.Equal(t, []Status{StatusReserved}, transitions[over], "%s only comes back by a new invitation", over)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{Lease: time.Minute}}
	require.Equal(t, time.Minute, s.backoff(1))
	require.Equal(t, 2*time.Minute, s.backoff(2))
	require.Equal(t, 32*time.Minute, s.backoff(6))
	require.Equal(t, time.Hour, s.backoff(7))
	require.Equal(t, time.Hour, s.backoff(1000))
}

// Rule 4 of the design, case by case.
func TestKeeps(t *testing.T) {
	t.Parallel()
	row := func(status Status, send, sent int, current string) *Member {
		return &Member{Status: status, Send: send, Sent: sent, InvitationID: current}
	}
	for name, c := range map[string]struct {
		keep bool
		row  *Member
		id   string
		send int
	}{
		"the current one":                        {true, row(StatusPending, 1, 1, "inv_1"), "inv_1", 1},
		"a copy of the current one":              {false, row(StatusPending, 1, 1, "inv_1"), "inv_2", 1},
		"an older one":                           {false, row(StatusPending, 2, 2, "inv_2"), "inv_1", 1},
		"the current one while a resend runs":    {true, row(StatusPending, 2, 1, "inv_1"), "inv_1", 1},
		"the new one while a resend runs":        {true, row(StatusPending, 2, 1, "inv_1"), "inv_2", 2},
		"one that is about to be settled":        {true, row(StatusReserved, 1, 0, ""), "inv_1", 1},
		"an older one while the next is due":     {false, row(StatusReserved, 2, 1, ""), "inv_1", 1},
		"of a higher send: a restored backup":    {true, row(StatusPending, 1, 1, "inv_1"), "inv_2", 2},
		"of a higher send, row revoked":          {true, row(StatusRevoked, 1, 1, "inv_1"), "inv_2", 2},
		"of a revoked row":                       {false, row(StatusRevoked, 1, 1, "inv_1"), "inv_1", 1},
		"of a row revoked before it was settled": {false, row(StatusRevoked, 1, 0, ""), "inv_1", 1},
		"of an active row":                       {false, row(StatusActive, 1, 1, "inv_1"), "inv_1", 1},
	} {
		require.Equal(t, c.keep, keeps(c.row, &Invitation{ID: c.id}, c.send), name)
	}
}
