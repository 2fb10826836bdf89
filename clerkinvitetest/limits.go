package clerkinvitetest

import (
	"net/http"
	"slices"
	"time"
)

// Limit allows a number of requests per time. Zero Requests means unlimited.
type Limit struct {
	Requests int
	Per      time.Duration
}

// Limits are Clerk's rate limits. Sliding and FreeRefused choose between undocumented
// behaviors.
type Limits struct {
	All        Limit // every request
	Create     Limit // POST /invitations
	CreateBulk Limit // POST /invitations/bulk

	OrganizationCreate     Limit // POST /organizations/{id}/invitations, of all organizations together
	OrganizationCreateBulk Limit // POST /organizations/{id}/invitations/bulk, of all organizations together

	// Sliding means that a window looks back from each request. Without it, a window
	// begins with a request and lasts for Per.
	Sliding bool

	// FreeRefused means that requests with a 4xx response do not count. Without it, they
	// count, including rate-limited ones.
	FreeRefused bool

	Body LimitBody // of the 429
}

// LimitBody is the form of the body of a 429.
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

		OrganizationCreate:     Limit{250, time.Hour},
		OrganizationCreateBulk: Limit{50, time.Hour},
	}
}

// SetLimits replaces the limits and resets their counts. The zero Limits, the default, are
// unlimited.
func (c *Clerk) SetLimits(l Limits) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limits = l
	clear(c.windows)
}

// window has the times of the requests that count for a limit: if it slides, within Per,
// otherwise since its first request.
type window struct {
	times []time.Time
}

// admit counts a request. It returns the windows it was counted in, and a 429 if one of
// them is full.
func (c *Clerk) admit(call Call, now time.Time) (counted []*window, refused *response) {
	for _, b := range []struct {
		call Call // "" means any
		Limit
	}{
		{"", c.limits.All}, {CallCreate, c.limits.Create}, {CallCreateBulk, c.limits.CreateBulk},
		{CallOrganizationCreate, c.limits.OrganizationCreate}, {CallOrganizationCreateBulk, c.limits.OrganizationCreateBulk},
	} {
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

// count adds a request, and returns how long it must wait, or 0 if it is allowed.
func (w *window) count(l Limit, all Limits, now time.Time) time.Duration {
	expired := func(t time.Time) bool { return !t.Add(l.Per).After(now) }
	if all.Sliding {
		w.times = slices.DeleteFunc(w.times, expired)
	} else if len(w.times) > 0 && expired(w.times[0]) {
		w.times = nil
	}
	w.times = append(w.times, now)
	excess := len(w.times) - l.Requests
	if excess <= 0 {
		return 0
	}
	last := 0 // the request that must leave the window
	if all.Sliding {
		last = excess
		if all.FreeRefused {
			last-- // this request does not count
		}
	}
	return w.times[last].Add(l.Per).Sub(now)
}

// forget removes the last counted request.
func (w *window) forget() { w.times = w.times[:len(w.times)-1] }

func (l Limits) refusal(wait time.Duration) *response {
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
