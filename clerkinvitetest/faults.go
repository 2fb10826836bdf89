package clerkinvitetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// When says on which side of its effect a request fails.
type When int

// Before its effect, or after it.
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

// Kind is a way in which a request fails.
type Kind string

// Ways to fail.
const (
	Timeout Kind = "timeout"  // no answer until the request's context ends or its client goes away
	Reset   Kind = "reset"    // the connection is cut
	NotSent Kind = "not sent" // no connection: always before the effect; through the Handler like Reset

	HTML502        Kind = "HTML 502" // the page of a proxy
	Empty503       Kind = "empty 503"
	JSON500        Kind = "JSON 500" // Clerk's own internal_clerk_error
	Redirect301    Kind = "redirect 301"
	Redirect307    Kind = "redirect 307"
	Null200        Kind = "null 200"         // the body null
	EmptyObject200 Kind = "empty object 200" // the body {}
	Truncated200   Kind = "truncated 200"    // the connection is cut in the middle of the body
	Empty200       Kind = "empty 200"

	Answer Kind = "answer" // Status, Code, Message and Meta of the Fault; without a Code an empty body
)

// Kinds returns every Kind but Answer.
func Kinds() []Kind {
	return []Kind{Timeout, Reset, NotSent, HTML502, Empty503, JSON500, Redirect301, Redirect307, Null200, EmptyObject200, Truncated200, Empty200}
}

// shapes holds the answers that kinds stand for.
var shapes = map[Kind]answer{
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
	Answer:         {},
}

// Fault makes requests fail.
type Fault struct {
	Call  Call   // "" is any
	Email string // only requests about this address; "" is any
	When  When
	Kind  Kind
	Times int // so many requests; 0 is one, -1 all

	Status  int // for Answer, as are the next three
	Code    string
	Message string
	Meta    map[string]any

	RetryAfter time.Duration // the header of any Kind that has headers; in whole seconds, rounded up
}

// Fail adds a fault. Of several that fit a request the first added counts. A Fault
// that cannot be meant panics.
func (c *Clerk) Fail(f Fault) {
	if f.Kind == "" && f.Status != 0 {
		f.Kind = Answer
	}
	if _, ok := shapes[f.Kind]; !ok {
		panic(fmt.Sprintf("clerkinvitetest: Fault.Kind is %q; see Kinds", string(f.Kind)))
	}
	if f.Kind == Answer && (f.Status < 200 || f.Status > 599) {
		panic("clerkinvitetest: Fault.Status of the Kind Answer is not 200 to 599")
	}
	if _, err := json.Marshal(f.Meta); err != nil {
		panic("clerkinvitetest: Fault.Meta is no JSON")
	}
	if f.Kind == NotSent {
		f.When = Before
	}
	if f.Times == 0 {
		f.Times = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, &f)
}

// ClearFaults removes all faults. Requests that hang already go on hanging.
func (c *Clerk) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// takeFault returns the fault for the request and counts it.
func (c *Clerk) takeFault(r request, when When) *Fault {
	emails := r.emails
	if rec := c.byID[r.invitationID]; rec != nil {
		emails = append(slices.Clone(emails), rec.email)
	}
	for i, f := range c.faults {
		if f.When != when || f.Call != "" && f.Call != r.call {
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
		return f
	}
	return nil
}

// answer returns what comes instead of the real answer.
func (f *Fault) answer(instead answer) answer {
	a := shapes[f.Kind]
	switch f.Kind {
	case Truncated200:
		a.value = instead.value
	case Answer:
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

// wholeSeconds rounds up, as Retry-After has it.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
