package modeltest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// grain is the unit of the clock's steps. The library's random seconds
// are shorter, so that they decide nothing.
const grain = 4 * time.Second

// born is the time at which every sequence begins.
var born = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

var (
	tenants = []string{"acme", "acme", "globex"}
	emails  = []string{"ada@example.com", "bob@example.com", "cyd@example.com", "dee@example.com"}
)

// mailedByHost is the address for which the host sends the link itself.
const mailedByHost = "dee@example.com"

// world is everything outside the library, with a record of its state.
type world struct {
	clerk     *clerkinvitetest.Clerk
	hidden    bool // Clerk's lists omit its only user, so Reconcile rightly removes no member
	behavior  clerkinvitetest.NamedBehavior
	beginning time.Time
	ticked    time.Time
	settled   int // the last step in which Clerk's lists showed everything
	events    []clerkinvite.Event
	users     map[string]*person
	order     []string // of users
	tenants   []string

	organization bool // one of the tenants is an organization
	shared       bool // two tenants are the organization
	dissolves    bool // the organization may be deleted
	dissolved    bool // the organization was deleted

	vanishedInvitations map[string]invitation // all invitations, as they were before the organization was deleted
	added               map[string]addition   // its members whom an attempt has added, by user

	known         map[string][]invitation       // by address, until something changes
	shortened     map[string]bool               // invitations that expire earlier
	withdrawn     map[string]bool               // invitations that a caller or operator revoked
	bare          map[string]bool               // other applications' invitations without metadata
	adopted       map[string]bool               // invitations without a marker that a member waits or waited for
	entrusted     map[string]bool               // of these, invitations that Adopt was given; Clerk may not know them
	everLimited   map[clerkinvitetest.Call]bool // limits that Clerk has reported; see limitOf
	revokeLimited bool                          // Clerk has limited a revocation, so a process may not send the next
	late          map[mark]bool                 // sends with possibly more than one invitation
	foreign       int
	cursor        string // of an unfinished reconciliation
	started       int    // tasks
	died          int    // processes
}

// person is a user at Clerk.
type person struct {
	clerkinvite.User
	deleted  bool
	member   bool      // of the organization
	unlocked time.Time // when a temporary lock ends
	past     []moment  // oldest first; the last is the present
}

// barred reports whether the user may not become a member.
func barred(u clerkinvite.User) bool { return u.Banned || u.Deprovisioned || u.Locked }

// moment is a state of a user, from a step on.
type moment struct {
	step int
	clerkinvite.User
	deleted bool
	member  bool // of the organization
}

// ever reports whether f was true for the user at some moment since the step.
func (p *person) ever(since int, is func(at moment) bool) bool {
	for _, at := range slices.Backward(p.past) {
		if is(at) {
			return true
		}
		if at.step < since {
			return false
		}
	}
	return false
}

// left reports whether the user shows other verified addresses instead of this one.
func left(u clerkinvite.User, email string) bool {
	return slices.ContainsFunc(u.Emails, func(e clerkinvite.UserEmail) bool { return e.Verified }) && !holds(u, email)
}

// primary returns the user's primary address if it is verified, or "".
func primary(u clerkinvite.User) string {
	for _, e := range u.Emails {
		if e.ID == u.PrimaryEmailID && e.Verified {
			return e.Address
		}
	}
	return ""
}

// invitation is an invitation at Clerk.
type invitation struct {
	clerkinvite.Invitation
	member string // in the library's marker, "" without one
	send   int
}

// makeWorld creates a Clerk with random behavior, and perhaps with existing users.
func (s *sequence) makeWorld() {
	s.beginning, s.ticked = time.Now(), born
	s.tenants = tenants
	s.users, s.known = map[string]*person{}, map[string][]invitation{}
	s.shortened, s.withdrawn, s.late = map[string]bool{}, map[string]bool{}, map[mark]bool{}
	s.bare, s.adopted, s.entrusted = map[string]bool{}, map[string]bool{}, map[string]bool{}
	s.everLimited = map[clerkinvitetest.Call]bool{}
	s.clerk = clerkinvitetest.NewClerk()
	s.clerk.SetNow(s.now)
	// Without metadata the sequence could not know what Reconcile must find.
	all := slices.DeleteFunc(clerkinvitetest.Behaviors(), func(b clerkinvitetest.NamedBehavior) bool { return b.Behavior.ListHidesMetadata })
	s.behavior, s.hidden = all[0], false
	if s.chance(2) {
		s.behavior = pick(s, all...)
	}
	s.clerk.SetBehavior(s.behavior.Behavior)
	s.sayf("Clerk's behavior: %s", s.behavior.Name)
	if s.chance(4) {
		email := pick(s, emails...)
		u := s.clerk.AddVerifiedUser(email)
		s.learn(u)
		s.sayf("%s has been a user", email)
	}
	if s.organization {
		s.makeOrganization()
	}
}

// now is the time for the library and for Clerk, rounded down to the grain, so that
// the library's random waits decide nothing.
func (s *sequence) now() time.Time { return born.Add(time.Since(s.beginning).Truncate(grain)) }

// timePasses moves the clock.
func (s *sequence) timePasses() {
	d := pick(s, grain, 5*grain, 5*grain, 2*time.Minute, 2*time.Minute, 2*time.Hour, 20*time.Hour, 31*24*time.Hour)
	// Usually no call takes that long, especially not a create.
	if d > 5*grain && (len(s.tasks) > 0 && !s.chance(3) || s.createUnderWay() && !s.chance(3)) {
		d = grain
	}
	s.sayf("%v pass", d)
	s.advance(d)
}

// createUnderWay reports whether a create is under way.
func (s *sequence) createUnderWay() bool {
	return slices.ContainsFunc(s.tasks, func(t *task) bool { return strings.HasPrefix(t.call, "create") })
}

func (s *sequence) advance(d time.Duration) {
	time.Sleep(s.now().Add(d).Sub(born.Add(time.Since(s.beginning))))
	s.tick()
}

// tick handles the time that has passed.
func (s *sequence) tick() {
	if now := s.now(); now.After(s.ticked) {
		s.ticked = now
		s.settle() // in less time than a lease has left after its last create
		for _, p := range s.people() {
			if p.Locked && !p.unlocked.IsZero() && !p.unlocked.After(now) {
				u := p.User
				u.Locked, u.LockEndsIn = false, 0
				s.learn(u)
			}
		}
		s.clerkChanged()
	}
}

// settle makes Clerk's lists show everything that was written.
func (s *sequence) settle() {
	s.clerk.Settle()
	s.settled = s.step
}

// clerkChanged clears the cache of Clerk's invitations.
func (s *sequence) clerkChanged() { clear(s.known) }

// invitations returns all invitations of an address.
func (s *sequence) invitations(email string) []invitation {
	if list, ok := s.known[email]; ok {
		return list
	}
	var list []invitation
	for _, inv := range s.clerk.Invitations(email) {
		i := invitation{Invitation: inv}
		i.member, i.send = markOf(inv.PublicMetadata)
		list = append(list, i)
	}
	s.known[email] = list
	return list
}

// markOf returns the marker that the library writes into every invitation.
func markOf(metadata json.RawMessage) (member string, send int) {
	var m struct {
		Mark struct {
			ID   string `json:"id"`
			Send int    `json:"send"`
		} `json:"clerkinvite"`
	}
	_ = json.Unmarshal(metadata, &m)
	return m.Mark.ID, m.Mark.Send
}

// invitation returns the invitation with the id, or nil.
func (s *sequence) invitation(id string) *invitation {
	for _, email := range emails {
		list := s.invitations(email)
		for i := range list {
			if list[i].ID == id {
				return &list[i]
			}
		}
	}
	return nil
}

func (s *sequence) open(id string) bool {
	inv := s.invitation(id)
	return inv != nil && inv.Status == clerkinvite.InvitationPending
}

// holds reports whether u has verified the address.
func holds(u clerkinvite.User, email string) bool {
	return slices.ContainsFunc(u.Emails, func(e clerkinvite.UserEmail) bool { return e.Verified && e.Address == email })
}

// learn records the current state of a user.
func (s *sequence) learn(u clerkinvite.User) {
	p := s.users[u.ID]
	if p == nil {
		p = &person{}
		s.users[u.ID] = p
		s.order = append(s.order, u.ID)
	}
	p.User = u
	p.past = append(p.past, moment{s.step, u, false, p.member})
	s.clerkChanged()
}

// happened records an event and keeps it for delivery.
func (s *sequence) happened(hook clerkinvitetest.Webhook) {
	e, err := clerkinvite.ParseEvent(hook.Payload)
	if err != nil {
		panic(err)
	}
	if e.User != nil {
		s.learn(*e.User)
	} else if p := s.users[e.UserID]; p != nil {
		p.deleted = true
		p.past = append(p.past, moment{s.step, p.User, true, p.member})
	}
	s.clerkChanged()
	e.ID = hook.ID
	s.events = append(s.events, *e)
	s.membersChanged()
}

// holder returns the existing user who has verified the address, or nil.
func (s *sequence) holder(email string) *person {
	for _, id := range s.order {
		if p := s.users[id]; !p.deleted && holds(p.User, email) {
			return p
		}
	}
	return nil
}

// people returns the existing users.
func (s *sequence) people() []*person {
	var list []*person
	for _, id := range s.order {
		if p := s.users[id]; !p.deleted {
			list = append(list, p)
		}
	}
	return list
}

// outside makes people do something at Clerk, without the library.
func (s *sequence) outside() {
	if s.organization && s.chance(2) {
		s.outsideOrganization()
		return
	}
	email := pick(s, emails...)
	people := s.people()
	switch k := s.rand.IntN(48); {
	case k < 10:
		open := s.clerk.OpenInvitations(email)
		if len(open) == 0 {
			return
		}
		inv := pick(s, open[len(open)-1], pick(s, open...))
		hook, err := s.clerk.AcceptInvitation(inv.ID)
		s.sayf("%s accepts %s: %v", email, inv.ID, outcome{err})
		if err == nil {
			s.happened(hook)
		}
	case k < 15:
		verified := s.chance(2)
		s.sayf("%s signs up, verified: %v", email, verified)
		s.happened(s.clerk.SignUp(email, verified))
	case k < 19 && len(people) > 0:
		p := pick(s, people...)
		verified := s.chance(2) && s.holder(email) == nil
		if slices.ContainsFunc(p.Emails, func(e clerkinvite.UserEmail) bool { return e.Address == email }) {
			return
		}
		s.sayf("%s adds %s, verified: %v", p.ID, email, verified)
		s.happened(s.clerk.AddEmail(p.ID, clerkinvitetest.EmailSpec{Address: email, Verified: verified}))
	case k < 23 && len(people) > 0:
		p := pick(s, people...)
		if len(p.Emails) == 0 {
			return
		}
		e := pick(s, p.Emails...)
		if s.holder(e.Address) != nil {
			return
		}
		s.sayf("%s verifies %s", p.ID, e.Address)
		s.happened(s.clerk.VerifyEmail(p.ID, e.Address))
	case k < 25 && len(people) > 0:
		p := pick(s, people...)
		s.sayf("%s is deleted", p.ID)
		s.happened(s.clerk.DeleteUser(p.ID))
	case k < 26 && len(people) > 0:
		p := pick(s, people...)
		s.sayf("%s is banned", p.ID)
		s.happened(s.clerk.BanUser(p.ID))
	case k < 29:
		if open := s.clerk.OpenInvitations(email); len(open) > 0 {
			inv := pick(s, open...)
			s.sayf("%s is revoked in the dashboard", inv.ID)
			s.clerk.RevokeInDashboard(inv.ID)
			s.withdrawn[inv.ID] = true
		}
	case k < 31:
		if open := s.clerk.OpenInvitations(email); len(open) > 0 {
			inv := pick(s, open...)
			s.sayf("%s runs out", inv.ID)
			s.clerk.ExpireNow(inv.ID)
			s.shortened[inv.ID] = true
		}
	case k < 34:
		metadata := map[string]any{"app": "another"}
		switch {
		case s.chance(3): // by another application that uses this library
			s.foreign++
			metadata = map[string]any{"clerkinvite": map[string]any{"id": fmt.Sprintf("00000000-0000-7000-8000-%012d", s.foreign), "send": 1}}
		case s.chance(4): // by the dashboard
			metadata = nil
		}
		inv := s.clerk.CreateForeign(email, metadata)
		s.bare[inv.ID] = metadata == nil
		s.sayf("another application invites %s: %s", email, inv.ID)
	case k < 36 && len(people) > 0:
		p := pick(s, people...)
		s.sayf("%s changes their name", p.ID)
		s.happened(s.clerk.UserUpdated(p.ID))
	case k < 39 && len(people) > 0:
		p := pick(s, people...)
		if h := s.holder(email); h != nil && h != p {
			return
		}
		s.sayf("%s changes the address to %s", p.ID, email)
		s.happened(s.clerk.ChangeEmail(p.ID, email))
	case k < 40 && len(people) > 0:
		p := pick(s, people...)
		if len(p.Emails) == 0 {
			return
		}
		e := pick(s, p.Emails...)
		if s.chance(2) {
			s.sayf("%s gives up %s", p.ID, e.Address)
			s.happened(s.clerk.RemoveEmail(p.ID, e.Address))
		} else {
			s.sayf("%s has the primary address %s", p.ID, e.Address)
			s.happened(s.clerk.SetPrimaryEmail(p.ID, e.Address))
		}
	case k < 42 && len(people) > 0:
		p := pick(s, people...)
		d := pick(s, 0, grain, time.Minute, 5*time.Hour)
		p.unlocked = time.Time{}
		if d > 0 {
			p.unlocked = s.now().Add(d)
		}
		s.sayf("%s is locked for %v", p.ID, d)
		s.happened(s.clerk.LockUser(p.ID, d))
	case k < 44 && len(people) > 0:
		p := pick(s, people...)
		s.sayf("%s is unlocked", p.ID)
		s.happened(s.clerk.UnlockUser(p.ID))
	case k < 45 && len(people) > 0:
		p := pick(s, people...)
		s.sayf("%s is deprovisioned", p.ID)
		s.happened(s.clerk.DeprovisionUser(p.ID))
	case k < 47:
		s.sayf("Clerk shows everything that was written")
		s.settle()
	}
	s.membersChanged()
	s.clerkChanged()
}
