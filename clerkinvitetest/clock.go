package clerkinvitetest

import (
	"sync"
	"time"
)

// Clock is a clock that a test advances. Use its Now method for [Clerk.SetNow], clerkinvite.Config.Now,
// clerkinvite.WebhookConfig.Now and, with PostgreSQL, clerkinvite.PgxOptions.Now. Clock is safe for
// concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that shows start.
func NewClock(start time.Time) *Clock { return &Clock{now: start} }

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
