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
	for _, state := range clerkinvite.Statuses() {
		names[label(state)] = true
	}
	require.Len(t, names, len(clerkinvite.Statuses()))
	for _, reason := range []string{
		clerkinvite.ReasonUserBanned, clerkinvite.ReasonUserDeprovisioned, clerkinvite.ReasonUserLocked, clerkinvite.ReasonUserDeleted, clerkinvite.ReasonSecondAddress, clerkinvite.ReasonRevokedAtClerk,
		clerkinvite.ReasonLeftOrganization, clerkinvite.ReasonOrganizationFull,
		"unavailable", "too_many_requests", "some_future_code",
	} {
		require.NotContains(t, reasonWords(reason), "_")
	}
}

// addresses finds addresses no matter how mail programs, spreadsheets and people separate them. Other text is returned as typed.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"":                nil,
		" \n ,; \r\n":     nil,
		"ada@example.com": {"ada@example.com"},
		" ada@example.com\r\n\njoan@example.com\n":              {"ada@example.com", "joan@example.com"},
		"ada@example.com, joan@example.com;kay@example.com,":    {"ada@example.com", "joan@example.com", "kay@example.com"},
		"Ada <ada@example.com>, Joan Clarke <joan@example.com>": {"ada@example.com", "joan@example.com"},
		"<ada@example.com>": {"ada@example.com"},
		`"Lovelace, Ada; Countess" <ada@example.com>, kay@example.com`:             {"ada@example.com", "kay@example.com"},
		"Lovelace, Ada <ada@example.com>; Clarke, Joan <joan@example.com>":         {"ada@example.com", "joan@example.com"},
		"kay@example.com, Lovelace, Ada <ada@example.com>":                         {"kay@example.com", "ada@example.com"},
		`"ada@example.com" <ada@example.com>; joan@example.com <joan@example.com>`: {"ada@example.com", "joan@example.com"},
		"not-an-address, ada@example.com":                                          {"not-an-address", "ada@example.com"},
		"not-an-address\nAda <ada@example.com>":                                    {"not-an-address", "ada@example.com"},
		"Ada <ada>":                                                                {"Ada <ada>"},
		"ada@example.com joan@example.com":                                         {"ada@example.com joan@example.com"},
		`"ada@example.com`:                                                         {`"ada@example.com`},
	} {
		require.Equal(t, want, addresses(list), list)
	}
}

func TestSummary(t *testing.T) {
	t.Parallel()
	counts := map[clerkinvite.Status]int{clerkinvite.StatusPending: 790, clerkinvite.StatusReserved: 210}
	require.Equal(t, "790 invited, 210 waiting.", summary(counts, 0))
	require.Equal(t, summary(counts, 0), summary(readNumbers(numbers(counts)), 0))
}
