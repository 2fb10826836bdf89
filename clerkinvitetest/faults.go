package clerkinvitetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// When says whether a request fails before or after its effect.
type When int

// Before or after the effect.
const (
	Before When = iota
	After
)

// String returns "before" or "after".
func (w When) String() string {
	if w == After {
		return "after"
	}
	return "before"
}

// Kind is a way of failing.
type Kind string

// Ways of failing. With the defaults, Invite waits 45 seconds for a [Timeout], three quarters of the lease. Call
// [Clerk.SetTimeout] in tests with a real clock.
const (
	Timeout Kind = "timeout"  // no response until the request's context ends or its client disconnects
	Reset   Kind = "reset"    // the connection is cut
	NotSent Kind = "not sent" // no connection, so no effect; with the Handler the same as Reset

	HTML502        Kind = "HTML 502" // a proxy's page
	Empty503       Kind = "empty 503"
	JSON500        Kind = "JSON 500" // Clerk's own internal_clerk_error
	Redirect301    Kind = "redirect 301"
	Redirect307    Kind = "redirect 307"
	Null200        Kind = "null 200"         // the body null
	EmptyObject200 Kind = "empty object 200" // the body {}
	Truncated200   Kind = "truncated 200"    // the connection is cut in the middle of the body
	Empty200       Kind = "empty 200"

	Response Kind = "response" // Status, Code, Message and Meta of the Fault; without a Code, the body is empty
)

// Kinds returns every Kind except Response.
func Kinds() []Kind {
	return []Kind{Timeout, Reset, NotSent, HTML502, Empty503, JSON500, Redirect301, Redirect307, Null200, EmptyObject200, Truncated200, Empty200}
}

// shapes are the responses of the kinds.
var shapes = map[Kind]response{
	Timeout:        {form: asSilence},
	Reset:          {form: asReset},
	NotSent:        {form: asNotSent},
	HTML502:        {status: http.StatusBadGateway, form: asHTML},
	Empty503:       {status: http.StatusServiceUnavailable, form: asNothing},
	JSON500:        refuse(http.StatusInternalServerError, "internal_clerk_error", "Oops, an unexpected error occurred", "There was an internal error on our servers. We've been notified and are working on fixing it.", nil),
	Redirect301:    {status: http.StatusMovedPermanently, form: asNothing},
	Redirect307:    {status: http.StatusTemporaryRedirect, form: asNothing},
	Null200:        {status: http.StatusOK, form: asNull},
	EmptyObject200: {status: http.StatusOK, form: asEmptyObject},
	Truncated200:   {status: http.StatusOK, form: asHalf},
	Empty200:       {status: http.StatusOK, form: asNothing},
	Response:       {},
}

// Fault makes requests fail.
type Fault struct {
	Call  Call   // "" means any; CallAnyCreate means every way to create
	Email string // only requests about this address; "" means any
	When  When
	Kind  Kind
	Times int // number of requests; 0 means one, -1 all

	For time.Duration // ends the fault this long after Fail, by the clock of SetNow; 0 means that only Times ends it

	Status  int // for Kind Response, as are the next three fields
	Code    string
	Message string
	Meta    map[string]any

	RetryAfter time.Duration // for any Kind with headers; rounded up to whole seconds; not longer than the rest of For

	ends time.Time // the end of For
}

// RateLimited returns a Fault that rejects every create, single and bulk, with a 429 until wait has
// passed. Retry-After says how much of wait is left. With a wait of 0 there is no Retry-After, and the
// limit stays until [Clerk.ClearFaults].
func RateLimited(wait time.Duration) Fault {
	return Fault{
		Call: CallAnyCreate, Kind: Response, Times: -1, For: wait, RetryAfter: wait,
		Status: http.StatusTooManyRequests, Code: "too_many_requests", Message: "Too many requests, retry later",
	}
}

// Fail adds a fault. If several match a request, the first one added is used. Fail panics if
// the fault is not valid.
func (c *Clerk) Fail(f Fault) {
	if f.Kind == "" && f.Status != 0 {
		f.Kind = Response
	}
	if _, ok := shapes[f.Kind]; !ok {
		panic(fmt.Sprintf("clerkinvitetest: Fault.Kind is %q, but must be one of Kinds or Response", string(f.Kind)))
	}
	if f.Kind == Response && (f.Status < 200 || f.Status > 599) {
		panic("clerkinvitetest: Fault.Status must be 200 to 599 for the Kind Response")
	}
	if f.For < 0 {
		panic("clerkinvitetest: Fault.For must not be negative")
	}
	if _, err := json.Marshal(f.Meta); err != nil {
		panic("clerkinvitetest: Fault.Meta must be JSON")
	}
	if f.Kind == NotSent {
		f.When = Before
	}
	if f.Times == 0 {
		f.Times = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.For > 0 {
		f.ends = c.time().Add(f.For)
	}
	c.faults = append(c.faults, &f)
}

// ClearFaults removes all faults. Requests that already hang continue to hang.
func (c *Clerk) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// takeFault returns the fault for the request, if any, and counts its use.
func (c *Clerk) takeFault(r request, when When, now time.Time) *Fault {
	c.faults = slices.DeleteFunc(c.faults, func(f *Fault) bool { return f.For > 0 && !now.Before(f.ends) })
	emails := r.emails
	if rec := c.byID[r.invitationID]; rec != nil {
		emails = append(slices.Clone(emails), rec.email)
	}
	for i, f := range c.faults {
		if f.When != when || !f.Call.includes(r.call) {
			continue
		}
		if f.Email != "" && !slices.ContainsFunc(emails, func(e string) bool { return fold(e) == fold(f.Email) }) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				c.faults = slices.Delete(c.faults, i, i+1)
			}
		}
		taken := *f
		if f.For > 0 {
			taken.RetryAfter = min(f.RetryAfter, f.ends.Sub(now))
		}
		return &taken
	}
	return nil
}

// includes reports whether a fault of c concerns the call.
func (c Call) includes(call Call) bool {
	return c == "" || c == call || c == CallAnyCreate && slices.Contains(creates, call)
}

var creates = []Call{CallCreate, CallCreateBulk, CallOrganizationCreate, CallOrganizationCreateBulk}

// response returns the fault's response instead of the real one.
func (f *Fault) response(realResponse response) response {
	a := shapes[f.Kind]
	switch f.Kind {
	case Truncated200:
		a.value = realResponse.value
	case Response:
		a.status = f.Status
		if a.form = asNothing; f.Code != "" {
			a.form = asJSON
			a.err = &wireError{Code: f.Code, Message: f.Message, LongMessage: f.Message, Meta: f.Meta}
		}
	default:
	}
	a.retryAfter = wholeSeconds(f.RetryAfter)
	return a
}

// wholeSeconds rounds up to seconds, the unit of Retry-After.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
