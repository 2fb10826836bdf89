package clerkinvitetest

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// Clerk is a fake of Clerk that remembers: users, invitations, the emails it sent and
// the requests it got. It refuses what Clerk refuses. Use it as a
// [clerkinvite.ClerkAPI], or behind the real adapter through [Clerk.Handler]; both
// work on the same state and fail in the same ways.
//
// Where Clerk's documents are silent it does what is likeliest; see [Behavior]. It is
// safe for concurrent use, and prints without addresses.
type Clerk struct {
	mu          sync.Mutex
	now         func() time.Time
	behavior    Behavior
	secretKey   string
	patience    time.Duration
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
	userByEmail map[string][]*userRecord // by folded address, of those who hold it or held it
}

var _ clerkinvite.ClerkAPI = (*Clerk)(nil)

// NewClerk returns a Clerk without users and invitations.
func NewClerk() *Clerk {
	return &Clerk{
		now:         time.Now,
		serial:      make(map[string]int),
		counts:      make(map[Call]int),
		windows:     make(map[Call]*window),
		mailTo:      make(map[string]int),
		byID:        make(map[string]*invitationRecord),
		byEmail:     make(map[string][]*invitationRecord),
		userByID:    make(map[string]*userRecord),
		userByEmail: make(map[string][]*userRecord),
	}
}

// SetNow replaces the clock, by which invitations are made and expire and limits are
// counted. It must not call c. Defaults to time.Now.
func (c *Clerk) SetNow(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// SetSecretKey lets the Handler refuse every request without this key. Without it
// any key will do, and none.
func (c *Clerk) SetSecretKey(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secretKey = key
}

// SetTimeout limits how long a call of c as a [clerkinvite.ClerkAPI] waits for an
// answer that does not come, as the Timeout of the real adapter does. Zero, the
// default, is until the call's context ends.
func (c *Clerk) SetTimeout(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patience = d
}

// Call names a kind of request.
type Call string

// The requests that c understands.
const (
	CallFindUsers  Call = "GET /users"
	CallCountUsers Call = "GET /users/count"
	CallGetUser    Call = "GET /users/{id}"
	CallCreate     Call = "POST /invitations"
	CallCreateBulk Call = "POST /invitations/bulk"
	CallList       Call = "GET /invitations"
	CallRevoke     Call = "POST /invitations/revoke"
)

// Requests returns how many requests of each kind came since the last ResetCounts,
// refused and failed ones included.
func (c *Clerk) Requests() map[Call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// RequestCount returns how many requests came since the last ResetCounts.
func (c *Clerk) RequestCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, count := range c.counts {
		n += count
	}
	return n
}

// ResetCounts starts the counting of requests again. Emails stay counted.
func (c *Clerk) ResetCounts() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.counts)
}

// OnCall lets f be called with each request: when it has come, and when it has taken
// effect and is not answered yet (not if a limit or a fault kept it from getting
// that far). f may block, and may call c: Clerk is slow then, and finishes what its
// caller has given up. f runs in another goroutine than the caller. nil removes it.
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

// request is one request to Clerk, from wherever it came.
type request struct {
	call         Call
	emails       []string                   // the addresses it is about
	invitationID string                     // the invitation it is about
	denied       *answer                    // why it is not authorized
	run          func(now time.Time) answer // what it does; called with the lock held
}

// exchange is the way of every request: counted, limited, failed on demand, done.
func (c *Clerk) exchange(ctx context.Context, r request) answer {
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

func (c *Clerk) perform(r request) (a answer, done bool) {
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
	} else if f := c.takeFault(r, Before); f != nil {
		a = f.answer(answer{})
	} else {
		a, done = r.run(now), true
		if f := c.takeFault(r, After); f != nil {
			a = f.answer(a)
		}
	}
	if c.limits.FreeRefused && a.status/100 == 4 {
		for _, w := range windows {
			w.forget()
		}
	}
	return a, done
}

// time returns the current time in Clerk's precision.
func (c *Clerk) time() time.Time { return c.now().UTC().Truncate(time.Millisecond) }

// next returns 1, 2, … for each kind.
func (c *Clerk) next(kind string) int {
	c.serial[kind]++
	return c.serial[kind]
}

// newID returns inv_000001, inv_000002, … for the prefix "inv".
func (c *Clerk) newID(prefix string) string { return fmt.Sprintf("%s_%06d", prefix, c.next(prefix)) }

// fold returns the form in which Clerk compares addresses.
func fold(email string) string { return strings.ToLower(strings.TrimSpace(email)) }
