package testkit

import (
	"context"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// ClockedStore is a Store with another clock.
type ClockedStore struct {
	clerkinvite.Store
	Now func() time.Time
}

// Clock implements clerkinvite.Store.
func (s ClockedStore) Clock(context.Context) (time.Time, error) { return s.Now(), nil }

// NewClock returns a clock that starts on a Sunday morning.
func NewClock() *clerkinvitetest.Clock {
	return clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
}
