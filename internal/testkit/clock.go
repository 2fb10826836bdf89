package testkit

import (
	"time"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// NewClock returns a clock that starts on a Sunday morning.
func NewClock() *clerkinvitetest.Clock {
	return clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
}
