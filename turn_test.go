package clerkinvite

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A limit lasts as long as Clerk says, but no longer than Clerk's limits do. Background passes wait longer, in proportion.
func TestLimitWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ told, create, createMargin, other time.Duration }{
		{time.Second, time.Second, time.Second, time.Second},
		{30 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second},
		{time.Minute, time.Minute, time.Minute, time.Minute},
		{61 * time.Second, 61 * time.Second, time.Minute, time.Minute},
		{time.Hour, time.Hour, time.Minute, time.Minute},
		{24 * time.Hour, time.Hour, time.Minute, time.Minute},
		{math.MaxInt64, time.Hour, time.Minute, time.Minute},
		{0, time.Minute, time.Minute, time.Minute},
		{-time.Hour, time.Minute, time.Minute, time.Minute},
		{math.MinInt64, time.Minute, time.Minute, time.Minute},
	} {
		for _, endpoint := range []string{endpointCreate, endpointCreateBulk} {
			require.Equal(t, c.create, limitWait(endpoint, c.told), c.told)
			require.Equal(t, c.createMargin, limitMarginOf(endpoint, c.create), c.told)
		}
		for _, endpoint := range []string{endpointFindUsers, endpointGetUser, endpointList, endpointRevoke} {
			require.Equal(t, c.other, limitWait(endpoint, c.told), c.told)
			require.Zero(t, limitMarginOf(endpoint, c.other), c.told)
		}
	}
}

// The memory of a limit follows the store, unless a clock is wrong.
func TestLimitsLoaded(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return testNow.Add(time.Duration(minutes) * time.Minute) }
	for name, c := range map[string]struct {
		endpoint         string
		known            limit
		stored           time.Time
		wait, background time.Duration // afterwards
	}{
		"nothing known":                    {endpointCreate, limit{}, time.Time{}, 0, 0},
		"another's, create":                {endpointCreate, limit{}, at(30), 0, 30 * time.Minute},
		"another's":                        {endpointList, limit{}, at(1), time.Minute, time.Minute},
		"another's has ended":              {endpointList, limit{}, at(-1), 0, 0},
		"a later one of another":           {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(30), 5 * time.Minute, 30 * time.Minute},
		"ours":                             {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(6), 5 * time.Minute, 6 * time.Minute},
		"ours was deleted":                 {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, time.Time{}, 0, 0},
		"ours was deleted, a minute stays": {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(1), time.Minute, time.Minute},
		"ours could not be shared":         {endpointCreate, limit{until: at(5), padded: at(6)}, time.Time{}, 5 * time.Minute, 6 * time.Minute},
		"ours could not be shared, an older one ended": {endpointList, limit{until: at(1), padded: at(1)}, at(-9), time.Minute, time.Minute},
		"years ahead":            {endpointCreate, limit{until: at(5), padded: at(6), stored: at(6)}, at(1e6), 5 * time.Minute, 6 * time.Minute},
		"too long for a look-up": {endpointFindUsers, limit{}, at(60), 0, 0},
		"a clock that is ahead":  {endpointFindUsers, limit{}, at(5), 5 * time.Minute, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &limits{byEndpoint: map[string]*limit{c.endpoint: &c.known}}
			l.loaded(c.endpoint, c.stored, testNow, c.known.hits)
			require.Equal(t, c.wait, max(0, l.wait(c.endpoint, false, testNow)))
			require.Equal(t, c.background, max(0, l.wait(c.endpoint, true, testNow)))
		})
	}
}

// A read that began before this process met the limit does not lift it.
func TestLimitsLoaded_Late(t *testing.T) {
	t.Parallel()
	l := &limits{}
	seen := l.hits(endpointCreate)
	until := testNow.Add(time.Hour)
	l.change(endpointCreate, func(m *limit) { *m = limit{until: until, padded: until, stored: until, hits: m.hits + 1} })
	l.loaded(endpointCreate, time.Time{}, testNow, seen)
	require.Equal(t, time.Hour, l.wait(endpointCreate, false, testNow))
}

// A limit ends if the clock is set back.
func TestLimitsWait_ClockSetBack(t *testing.T) {
	t.Parallel()
	l := &limits{byEndpoint: map[string]*limit{endpointCreate: {until: testNow.Add(time.Hour), padded: testNow.Add(61 * time.Minute)}}}
	for _, background := range []bool{false, true} {
		require.Positive(t, l.wait(endpointCreate, background, testNow))
		require.Zero(t, l.wait(endpointCreate, background, testNow.AddDate(-1, 0, 0)))
	}
}

// A limit that cannot be true, because the clock was set back, ends with the next response. Otherwise all requests would
// wait for each other until the clock gets there.
func TestLimitsProbe_ClockSetBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var l limits
	l.change(endpointGetUser, func(m *limit) { m.until = now.Add(30 * time.Second) })
	now = now.Add(-24 * time.Hour)
	_, first := l.startProbe(endpointGetUser)
	require.True(t, first)
	l.endProbe(endpointGetUser, now, true)
	probe, _ := l.startProbe(endpointGetUser)
	require.Nil(t, probe)
}

// The share lets 86 single creates through per hour. A window begins with the first one, wherever in Clerk's hour.
func TestSpend(t *testing.T) {
	t.Parallel()
	for _, began := range []time.Time{testNow, testNow.Add(41*time.Minute + 123456789), testNow.In(time.FixedZone("", 1800))} {
		t.Run(fmt.Sprint(began), func(t *testing.T) {
			t.Parallel()
			var share time.Time
			var wait time.Duration
			for i := range shareCreates {
				share, wait = spend(share, began.Add(time.Duration(i)*30*time.Second))
				require.Zero(t, wait, i)
				require.Equal(t, share.Truncate(time.Microsecond), share, "as a store keeps it")
			}
			for _, after := range []time.Duration{50 * time.Minute, time.Hour} {
				next, wait := spend(share, began.Add(after))
				require.Equal(t, share, next)
				require.InDelta(t, shareWindow-after, wait, float64(time.Second))
				require.Positive(t, wait)
				// After the wait, a whole window is free again.
				next, wait = spend(share, began.Add(after).Add(wait))
				require.Zero(t, wait)
				require.EqualValues(t, 1, next.Sub(next.Truncate(time.Second))/time.Microsecond)
			}
		})
	}
	t.Run("another process's clock", func(t *testing.T) {
		t.Parallel()
		spent := testNow.Add(shareCreates * time.Microsecond)
		_, wait := spend(spent, testNow.Add(-4*time.Minute))
		require.Positive(t, wait)
		_, wait = spend(spent, testNow.Add(-6*time.Minute))
		require.Zero(t, wait, "it is not believed")
	})
	require.Equal(t, 14, 100-shareCreates, "docs/many-machines.md")
}

// At most 75 requests in any ten seconds, a quarter of a development instance's limit less than it allows.
func TestPace(t *testing.T) {
	t.Parallel()
	p := &pace{}
	now := testNow
	var sent []time.Time
	for i := range 1000 {
		if i == 500 {
			now = now.Add(time.Hour) // an hour without a request saves up no more than the burst
		}
		now = now.Add(max(0, p.next(now)))
		sent = append(sent, now)
	}
	for i, first := range sent {
		n := 0
		for _, at := range sent[i:] {
			if at.Sub(first) < 10*time.Second {
				n++
			}
		}
		require.LessOrEqual(t, n, 75)
	}
	require.Equal(t, sent[0], sent[24], "the burst")
	require.InDelta(t, 475.0/5, sent[499].Sub(sent[0]).Seconds(), 1)
}
