package clerkinvitetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/idna"

	"github.com/clerkinvite/clerkinvite"
)

// Clerk is a fake Clerk with users, organizations, invitations, sent emails and counts of
// requests. It rejects what the real Clerk rejects. Use it as a [clerkinvite.ClerkAPI] and
// [clerkinvite.OrganizationAPI], or behind the real adapter through [Clerk.Handler]; both have
// the same state and fail in the same ways.
//
// Where the real Clerk is undocumented, the fake does what is most likely; see [Behavior]. It
// prints without addresses. Clerk is safe for concurrent use.
type Clerk struct {
	mu          sync.Mutex
	now         func() time.Time
	behavior    Behavior
	secretKey   string
	timeout     time.Duration
	link        func(invitationID string) string
	onCall      func(ctx context.Context, call Call, when When)
	serial      map[string]int
	counts      map[Call]int
	faults      []*Fault
	limits      Limits
	windows     map[Call]*window
	mail        []Mail
	mailTo      map[string]int
	invitations []*invitationRecord // oldest first
	byID        map[string]*invitationRecord
	byEmail     map[string][]*invitationRecord // by folded address
	users       []*userRecord                  // oldest first
	userByID    map[string]*userRecord
	userByEmail map[string][]*userRecord // by folded address, current or former

	organizations   map[string]*organization
	noOrganizations bool      // see DisableOrganizations
	events          []Webhook // see OrganizationEvents
}

var (
	_ clerkinvite.ClerkAPI        = (*Clerk)(nil)
	_ clerkinvite.OrganizationAPI = (*Clerk)(nil)
)

// NewClerk returns a Clerk without users, organizations and invitations.
func NewClerk() *Clerk {
	return &Clerk{
		now:         time.Now,
		link:        func(id string) string { return "https://clerk.example.test/v1/tickets/accept?ticket=ticket_of_" + id },
		serial:      make(map[string]int),
		counts:      make(map[Call]int),
		windows:     make(map[Call]*window),
		mailTo:      make(map[string]int),
		byID:        make(map[string]*invitationRecord),
		byEmail:     make(map[string][]*invitationRecord),
		userByID:    make(map[string]*userRecord),
		userByEmail: make(map[string][]*userRecord),

		organizations: make(map[string]*organization),
	}
}

// SetNow replaces the clock, which decides when invitations expire and limits end. now must
// not call c. Defaults to time.Now.
func (c *Clerk) SetNow(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// SetLink replaces the function that returns the link of a new invitation, by default one at
// a reserved name. link must not call c.
func (c *Clerk) SetLink(link func(invitationID string) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link = link
}

// SetSecretKey makes the Handler reject requests without this key. By default it accepts
// every request.
func (c *Clerk) SetSecretKey(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secretKey = key
}

// SetTimeout limits how long a call of c as a [clerkinvite.ClerkAPI] waits for a missing
// response, as the Timeout of the real adapter does. With zero, the default, it waits until
// the call's context ends.
func (c *Clerk) SetTimeout(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timeout = d
}

// Call names a kind of request.
type Call string

// The requests that Clerk handles.
const (
	CallFindUsers  Call = "GET /users"
	CallCountUsers Call = "GET /users/count"
	CallGetUser    Call = "GET /users/{id}"
	CallCreate     Call = "POST /invitations"
	CallCreateBulk Call = "POST /invitations/bulk"
	CallList       Call = "GET /invitations"
	CallRevoke     Call = "POST /invitations/revoke"

	CallOrganizationCreate     Call = "POST /organizations/invitations"
	CallOrganizationCreateBulk Call = "POST /organizations/invitations/bulk"
	CallOrganizationList       Call = "GET /organizations/invitations"
	CallOrganizationListAll    Call = "GET /organization_invitations"
	CallOrganizationRevoke     Call = "POST /organizations/invitations/revoke"

	CallOrganizationRoles Call = "GET /organization_roles"

	CallMemberships  Call = "GET /organizations/memberships"
	CallAddMember    Call = "POST /organizations/memberships"
	CallRemoveMember Call = "DELETE /organizations/memberships"
)

// CallAnyCreate is every way to create invitations, for [Fault].Call: into the application and
// into an organization, single and bulk.
const CallAnyCreate Call = "any create"

// Requests returns the number of requests of each kind since the last ResetCounts,
// including rejected and failed ones.
func (c *Clerk) Requests() map[Call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// RequestCount returns the number of requests since the last ResetCounts.
func (c *Clerk) RequestCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, count := range c.counts {
		n += count
	}
	return n
}

// ResetCounts sets the counts of requests to zero. The count of emails stays.
func (c *Clerk) ResetCounts() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.counts)
}

// OnCall sets a function that is called for each request: when it arrives, and after it has
// taken effect but before its response (unless a limit or a fault prevented the effect). f
// may call c, and may block: Clerk is slow then, and finishes requests whose caller has
// gone. f does not run in the caller's goroutine. nil removes it.
func (c *Clerk) OnCall(f func(ctx context.Context, call Call, when When)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onCall = f
}

func (c *Clerk) hook() func(context.Context, Call, When) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.onCall
}

// request is a request to Clerk, by a direct call or by HTTP.
type request struct {
	call         Call
	emails       []string                     // the addresses it is about
	invitationID string                       // the invitation it is about
	denied       *response                    // the rejection of an unauthorized request
	run          func(now time.Time) response // its effect; called with the lock
}

// exchange counts a request and performs it.
func (c *Clerk) exchange(ctx context.Context, r request) response {
	c.mu.Lock()
	c.counts[r.call]++
	c.mu.Unlock()
	if f := c.hook(); f != nil {
		f(ctx, r.call, Before)
	}
	a, done := c.perform(r)
	if f := c.hook(); f != nil && done {
		f(ctx, r.call, After)
	}
	return a
}

// perform checks limits and faults, and makes the effect. done reports whether it did.
func (c *Clerk) perform(r request) (a response, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	trace := fmt.Sprintf("%032x", c.next("trace"))
	defer func() { a.trace = trace }()

	if r.denied != nil {
		return *r.denied, false
	}
	windows, refused := c.admit(r.call, now)
	if refused != nil {
		a = *refused
	} else if f := c.takeFault(r, Before, now); f != nil {
		a = f.response(response{})
	} else {
		a, done = r.run(now), true
		if f := c.takeFault(r, After, now); f != nil {
			a = f.response(a)
		}
	}
	if c.limits.FreeRefused && a.status/100 == 4 {
		for _, w := range windows {
			w.forget()
		}
	}
	return a, done
}

// time returns the current time with Clerk's precision.
func (c *Clerk) time() time.Time { return c.now().UTC().Truncate(time.Millisecond) }

// next returns 1, 2, … for each kind.
func (c *Clerk) next(kind string) int {
	c.serial[kind]++
	return c.serial[kind]
}

// newID returns inv_000001, inv_000002, … for the prefix "inv".
func (c *Clerk) newID(prefix string) string { return fmt.Sprintf("%s_%06d", prefix, c.next(prefix)) }

// stored returns the form in which Clerk stores and shows an address; see
// [Behavior].UnicodeDomains.
func (c *Clerk) stored(email string) string {
	local, domain, ok := strings.Cut(fold(email), "@")
	if !ok {
		return local
	}
	if c.behavior.UnicodeDomains {
		domain, _ = idna.Lookup.ToUnicode(domain)
	}
	if c.behavior.ASCIIDomains {
		domain, _ = idna.Lookup.ToASCII(domain)
	}
	return local + "@" + domain
}

// rejectForm rejects addresses that are not ASCII; see [Behavior].RejectsUnicode.
func (c *Clerk) rejectForm(param string, emails ...string) *response {
	if c.behavior.RejectsUnicode && slices.ContainsFunc(emails, func(email string) bool {
		return strings.ContainsFunc(email, func(r rune) bool { return r >= 0x80 })
	}) {
		a := refuseParam(param, "form_param_format_invalid", "is invalid", "Email address must be a valid email address.")
		return &a
	}
	return nil
}

// fold returns the form in which Clerk compares addresses.
func fold(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
