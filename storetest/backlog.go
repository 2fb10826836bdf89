package storetest

import (
	"context"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// backlog is an optional method that the stores of this repository have.
type backlog interface {
	Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error)
}

// backlogCounts checks Backlog if the store has it.
func backlogCounts(s *suite) {
	wrapped, _ := s.store.(shaped)
	store, ok := wrapped.Store.(backlog)
	if !ok {
		s.Skip("the store does not have the optional method Backlog")
	}
	want := func(now time.Time, want clerkinvite.Backlog) {
		s.Helper()
		got, err := store.Backlog(s.Context(), now)
		if err != nil || !got.OldestDue.Equal(want.OldestDue) || !got.OldestDue.IsZero() && got.OldestDue.Location() != time.UTC {
			s.Errorf("Backlog(%v) = %+v, %v; want %+v", now, got, err, want)
		}
		if got.OldestDue = want.OldestDue; got != want {
			s.Errorf("Backlog(%v) = %+v; want %+v", now, got, want)
		}
	}
	want(now, clerkinvite.Backlog{})

	resend := in(clerkinvite.StatusPending, reserved("tenant", "resend@example.com"))
	resend.Send, resend.NextAttemptAt = 2, after(-time.Minute)
	early := reserved("tenant", "early@example.com")
	early.NextAttemptAt = after(-time.Second)
	late := reserved("other", "late@example.com")
	late.NextAttemptAt = after(time.Hour)
	open := in(clerkinvite.StatusPending, reserved("tenant", "open@example.com"))
	open.ExpiresAt = after(time.Microsecond)
	over := in(clerkinvite.StatusPending, reserved("other", "over@example.com"))
	over.ExpiresAt = after(0)
	resend.ExpiresAt = after(-time.Hour) // due and overdue
	unknown := in(clerkinvite.StatusPending, reserved("other", "unknown@example.com"))
	unknown.ExpiresAt = nil
	rows := []*clerkinvite.Member{resend, early, late, open, over, unknown}
	for _, status := range []clerkinvite.Status{clerkinvite.StatusFailed, clerkinvite.StatusRevoked, clerkinvite.StatusExpired, clerkinvite.StatusRemoved, clerkinvite.StatusActive} {
		m := in(status, reserved("tenant", string(status)+"@example.com"))
		m.Send, m.NextAttemptAt, m.ExpiresAt = 2, after(-time.Hour), after(-time.Hour)
		rows = append(rows, m)
	}
	s.insert(rows...)
	want(now, clerkinvite.Backlog{Reserved: 2, Due: 2, OldestDue: *after(-time.Minute), Overdue: 2})
	want(*after(-time.Second), clerkinvite.Backlog{Reserved: 2, Due: 2, OldestDue: *after(-time.Minute), Overdue: 1})
	want(*after(-time.Hour), clerkinvite.Backlog{Reserved: 2, Overdue: 1})
	want(after(2*time.Hour).In(time.FixedZone("", 5*3600)), clerkinvite.Backlog{Reserved: 2, Due: 3, OldestDue: *after(-time.Minute), Overdue: 3})

	ended, cancel := context.WithCancel(s.Context())
	cancel()
	if _, err := store.Backlog(ended, now); err == nil {
		s.Error("Backlog with a context that has ended: no error")
	}
}
