package clerkinvitetest

import (
	"net/http"
	"slices"
	"time"
)

// Limit is how many requests are let through within which time. Zero Requests are
// unlimited.
type Limit struct {
	Requests int
	Per      time.Duration
}

// Limits are Clerk's rate limits. Windows, and what counts, are not documented: the
// switches choose.
type Limits struct {
	All        Limit // every request
	Create     Limit // POST /invitations
	CreateBulk Limit // POST /invitations/bulk

	// Sliding windows look back from each request. Without it a window begins with
	// a request and lasts for Per.
	Sliding bool

	// FreeRefused means that a request answered with a 4xx does not count. Without
	// it even one that a limit refused counts.
	FreeRefused bool

	Body LimitBody // of the 429
}

// LimitBody is what the body of a 429 is.
type LimitBody int

// Bodies of a 429.
const (
	LimitJSON LimitBody = iota // Clerk's error too_many_requests
	LimitEmpty
	LimitHTML
)

// DocumentedLimits returns the limits of a production instance.
func DocumentedLimits() Limits {
	return Limits{
		All:        Limit{1000, 10 * time.Second},
		Create:     Limit{100, time.Hour},
		CreateBulk: Limit{25, time.Hour},
	}
}

// SetLimits replaces the limits and forgets what was counted. The zero Limits are
// none, which is how a Clerk begins.
func (c *Clerk) SetLimits(l Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
	clear(c.windows)
}

// window holds the times of the requests that count for a limit: those within Per if
// it slides, else those since it was opened.
type window struct {
	times []time.Time
}

// admit counts a request. It returns the windows that it was counted in, and the 429
// if one of them is full.
func (c *Clerk) admit(call Call, now time.Time) (counted []*window, refused *answer) {
	for _, b := range []struct {
		call Call // "" is any
		Limit
	}{{"", c.limits.All}, {CallCreate, c.limits.Create}, {CallCreateBulk, c.limits.CreateBulk}} {
		if b.Requests <= 0 || b.call != "" && b.call != call {
			continue
		}
		w := c.windows[b.call]
		if w == nil {
			w = &window{}
			c.windows[b.call] = w
		}
		counted = append(counted, w)
		if wait := w.count(b.Limit, c.limits, now); wait > 0 {
			return counted, c.limits.refusal(wait)
		}
	}
	return counted, nil
}

// count adds a request and returns how long it has to wait, 0 if it is let through.
func (w *window) count(l Limit, how Limits, now time.Time) time.Duration {
	over := func(t time.Time) bool { return !t.Add(l.Per).After(now) }
	if how.Sliding {
		w.times = slices.DeleteFunc(w.times, over)
	} else if len(w.times) > 0 && over(w.times[0]) {
		w.times = nil
	}
	w.times = append(w.times, now)
	excess := len(w.times) - l.Requests
	if excess <= 0 {
		return 0
	}
	last := 0 // the request that has to leave the window first
	if how.Sliding {
		last = excess
		if how.FreeRefused {
			last-- // this one does not stay
		}
	}
	return w.times[last].Add(l.Per).Sub(now)
}

// forget takes back the request counted last.
func (w *window) forget() { w.times = w.times[:len(w.times)-1] }

func (l Limits) refusal(wait time.Duration) *answer {
	a := refuse(http.StatusTooManyRequests, "too_many_requests", "Too many requests", "Too many requests, retry later", nil)
	switch l.Body {
	case LimitEmpty:
		a.form = asNothing
	case LimitHTML:
		a.form = asHTML
	case LimitJSON:
	}
	a.retryAfter = wholeSeconds(wait)
	return &a
}
