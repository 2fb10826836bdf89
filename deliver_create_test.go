package clerkinvite

import (
	"fmt"
	"testing"

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
	require.Equal(t, []*attempt{list[0], list[6]}, q.bulk)
	require.Equal(t, list[1:5], q.single)
	require.True(t, q.more)
}

// Which attempts are next, and whether they share a request.
func TestQueueNext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bulk, single          int
		more, tried           bool
		singleAllowed, bulkOK bool
		want                  int
		shared                bool
	}{
		"empty":              {0, 0, false, false, true, true, 0, false},
		"ten share":          {12, 3, true, false, true, true, 10, true},
		"the last few share": {4, 3, false, false, true, true, 4, true},
		"one goes alone":     {1, 0, false, false, true, true, 1, false},
		"one shares if the single endpoint is limited": {1, 0, false, false, false, true, 1, true},
		"a request for ten is not spent on fewer":      {4, 0, true, false, true, true, 0, false},
		"meanwhile single ones go":                     {4, 2, true, false, true, true, 1, false},
		"those that were tried do not wait":            {4, 0, true, true, true, true, 4, true},
		"bulk limited: one by one":                     {12, 0, true, false, true, false, 1, false},
		"bulk limited: single ones first":              {12, 1, true, false, true, false, 1, false},
		"both limited: still tried, to be postponed":   {12, 0, true, false, false, false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := &queue{bulk: attempts(c.bulk, func(a *attempt) { a.shareable, a.triedInBulk = true, c.tried }), single: attempts(c.single), more: c.more}
			first := append(append([]*attempt{}, q.single...), q.bulk...)
			if c.shared {
				first = append([]*attempt{}, q.bulk...)
			}
			group, shared := q.next(c.singleAllowed, c.bulkOK)
			require.Len(t, group, c.want)
			require.Equal(t, c.shared, shared)
			require.Equal(t, first[:c.want], append([]*attempt{}, group...))
			require.Equal(t, c.bulk+c.single-c.want, len(q.bulk)+len(q.single), "nobody is lost")
		})
	}
}

// Undecided attempts return to where they can still go.
func TestQueuePutBack(t *testing.T) {
	t.Parallel()
	list := attempts(4)
	list[0].shareable, list[2].shareable = true, true
	list[3].verdict = verdict{kind: isInvited}
	waiting := attempts(2)
	q := &queue{bulk: waiting[:1:1], single: waiting[1:2:2]}
	q.putBack(list)
	require.Equal(t, []*attempt{list[0], list[2], waiting[0]}, q.bulk)
	require.Equal(t, []*attempt{waiting[1], list[1]}, q.single)
}
