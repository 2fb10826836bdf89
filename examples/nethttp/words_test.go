package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

// Times have one rounded unit.
func TestTimesInWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for d, words := range map[time.Duration][2]string{
		0:                            {"just now", "now"},
		59 * time.Second:             {"just now", "within a minute"},
		time.Minute:                  {"1 minute ago", "in 1 minute"},
		59 * time.Minute:             {"1 hour ago", "in 1 hour"},
		90 * time.Minute:             {"1 hour ago", "in 1 hour"},
		2 * time.Hour:                {"2 hours ago", "in 2 hours"},
		30*day - time.Second:         {"30 days ago", "in 30 days"},
		29*day - 2*time.Hour:         {"28 days ago", "in 28 days"},
		400*day + 3*time.Millisecond: {"400 days ago", "in 400 days"},
	} {
		past, future := now.Add(-d), now.Add(d)
		require.Equal(t, words[0], ago(now, &past), d)
		require.Equal(t, words[1], until(now, &future), d)
	}
}

// Every state has a name, and every reason is in words.
func TestStatesAndReasonsInWords(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, state := range states {
		names[label(state)] = true
	}
	require.Len(t, names, 7)
	for _, reason := range []string{
		clerkinvite.ReasonUserBanned, clerkinvite.ReasonUserDeprovisioned, clerkinvite.ReasonUserLocked, clerkinvite.ReasonUserDeleted, clerkinvite.ReasonSecondAddress, clerkinvite.ReasonAtClerk,
		"unavailable", "too_many_requests", "some_future_code",
	} {
		require.NotContains(t, reasonWords(reason), "_")
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	counts := map[clerkinvite.Status]int{clerkinvite.StatusPending: 790, clerkinvite.StatusReserved: 210}
	require.Equal(t, "790 invited, 210 waiting.", summary(counts, 0))
	require.Equal(t, summary(counts, 0), summary(readNumbers(numbers(counts)), 0))
}
