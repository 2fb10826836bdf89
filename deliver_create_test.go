package clerkinvite

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func attempts(n int, change ...func(a *attempt)) []*attempt {
	list := make([]*attempt, n)
	for i := range list {
		list[i] = &attempt{row: &Member{Email: fmt.Sprintf("p%d@example.com", i), Send: 1, Attempts: 1}}
		for _, f := range change {
			f(list[i])
		}
	}
	return list
}

// Which attempts may share a request.
func TestNewQueue(t *testing.T) {
	t.Parallel()
	list := attempts(7)
	list[1].row.Attempts = 2
	list[2].row.Send = 2
	list[3].params.PublicMetadata = []byte(`{"plan":"pro"}`)
	list[4].row.Email = list[0].row.Email
	list[5].delivery = &delivery{}
	q := newQueue(list, true)
	require.Equal(t, []*attempt{list[0], list[2], list[6]}, q.shared)
	require.Equal(t, []*attempt{list[1], list[3], list[4]}, q.single)
	require.True(t, q.more)
}

// Which attempts are next, and whether they share a request.
func TestQueueNext(t *testing.T) {
	t.Parallel()
	limit := limitedFor(time.Minute)
	for name, c := range map[string]struct {
		queue  queue
		shared int // attempts that can share a request, and whether they have tried
		tried  bool
		single int
		want   int
		bulk   bool
	}{
		"empty":              {want: 0},
		"ten share":          {queue: queue{more: true}, shared: 12, single: 3, want: 10, bulk: true},
		"the last few share": {shared: 4, single: 3, want: 4, bulk: true},
		"one goes alone":     {shared: 1, want: 1},
		"one shares if the single endpoint is limited":         {queue: queue{singleLimit: limit}, shared: 1, want: 1, bulk: true},
		"a request for ten is not spent on fewer":              {queue: queue{more: true}, shared: 4, want: 0},
		"single ones go in the meantime":                       {queue: queue{more: true}, shared: 4, single: 2, want: 1},
		"those that were tried do not wait":                    {queue: queue{more: true}, shared: 4, tried: true, want: 4, bulk: true},
		"bulk limited: one by one":                             {queue: queue{more: true, bulkLimit: limit}, shared: 12, want: 1},
		"bulk limited: single ones first":                      {queue: queue{bulkLimit: limit}, shared: 12, single: 1, want: 1},
		"both limited: nobody who can share":                   {queue: queue{bulkLimit: limit, singleLimit: limit}, shared: 12, want: 0},
		"both limited: single ones may have something to find": {queue: queue{bulkLimit: limit, singleLimit: limit}, shared: 12, single: 2, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := c.queue
			q.shared, q.single = attempts(c.shared, func(a *attempt) { a.shareable, a.triedInBulk = true, c.tried }), attempts(c.single)
			first := append(append([]*attempt{}, q.single...), q.shared...)
			if c.bulk {
				first = append([]*attempt{}, q.shared...)
			}
			group, bulk := q.next()
			require.Len(t, group, c.want)
			require.Equal(t, c.bulk, bulk)
			require.Equal(t, first[:c.want], append([]*attempt{}, group...))
			require.Equal(t, c.shared+c.single-c.want, len(q.shared)+len(q.single), "nobody is lost")
		})
	}
}

// Attempts that can share a request wait for the first of the two endpoints.
func TestQueueLimit(t *testing.T) {
	t.Parallel()
	short, long := limitedFor(time.Minute), limitedFor(time.Hour)
	for _, c := range []struct{ bulk, single, want error }{
		{nil, nil, nil},
		{short, nil, nil},
		{nil, short, nil},
		{short, long, short},
		{long, short, short},
	} {
		require.Equal(t, c.want, (&queue{bulkLimit: c.bulk, singleLimit: c.single}).limit())
	}
}

// Undecided attempts return to where they can still go.
func TestQueuePutBack(t *testing.T) {
	t.Parallel()
	list := attempts(4)
	list[0].shareable, list[2].shareable = true, true
	list[3].verdict = verdict{kind: isInvited}
	waiting := attempts(2)
	q := &queue{shared: waiting[:1:1], single: waiting[1:2:2]}
	q.putBack(list)
	require.Equal(t, []*attempt{list[0], list[2], waiting[0]}, q.shared)
	require.Equal(t, []*attempt{waiting[1], list[1]}, q.single)
}
