package protocol

import (
	"fmt"
	"math/bits"
)

// maxActors, maxInvitations and maxFlights limit a State. A trace that exceeds
// them is bad, so that nothing is left out silently.
const (
	maxActors      = 3
	maxInvitations = 6
	maxFlights     = 3
)

// status is the status of a row or, from pending on, of an invitation at Clerk.
type status uint8

const (
	none status = iota
	reserved
	pending
	active
	failed
	revoked
	accepted
)

func (s status) String() string {
	return [...]string{"none", "reserved", "pending", "active", "failed", "revoked", "accepted"}[s]
}

// row has the fields of a member's row that the protocol uses. Times are epochs: how often
// all leases have ended before. An actor's copy is the row when it was read.
type row struct {
	status   status
	send     int8
	sent     int8
	inv      int8 // 1 is the first invitation at Clerk, 0 means none
	attempts int8
	held     int8 // 1 + the epoch in which it was claimed, 0 means unclaimed
	next     int8 // the epoch in which it is due
	version  int8
}

func (r row) due() bool { return r.sent < r.send && (r.status == reserved || r.status == pending) }

func (r row) claimed(epoch int8) row {
	r.attempts++
	r.held, r.next = epoch+1, epoch+1
	return r
}

func (r row) settled(to status) row {
	r.status, r.sent, r.held, r.next = to, r.send, 0, 0
	return r
}

// withdrawn is the row without the invitation of this send. A resend keeps the older one.
func (r row) withdrawn() row {
	if r.status == pending {
		return r.settled(pending)
	}
	return r.settled(failed)
}

// invitation is an invitation at Clerk. Each one has sent an email.
type invitation struct {
	status status
	send   int8 // 0 for another application's
	late   bool // created by a request that began in its lease and was carried out after it
	ignore bool // with ignore_existing=true, for a reason that the attempt had seen
}

// flight is a create whose caller no longer waits for it.
type flight struct {
	send   int8 // 0 means no flight
	epoch  int8
	ignore bool
	known  bool // the reason for ignore_existing was seen
	stale  bool // it began after its lease
	knows  bool // the person had joined when it last had to look for users
}

// actor is a call of a verb: its next call and what it knows.
type actor struct {
	verb     Verb
	pc       pc
	row      row  // as read, or claimed
	lease    int8 // the epoch in which its lease began
	began    int8 // the epoch in which its pass began
	due      int8 // the epoch in which the row was due before the claim, if that is a later one
	round    int8
	made     int8 // the invitation that its decision is about
	previous int8 // the row's invitation when the attempt began
	next     decision
	at       int8 // the epoch of that decision
	seen     [maxInvitations]status
	todo     uint8 // invitations to revoke, a bit each
	others   bool  // Clerk has a pending invitation that is not this send's
	again    bool  // Clerk has rejected a create of this attempt as a duplicate
	accepted bool  // the invitation that the row refers to was accepted, perhaps since it looked for users
	older    bool  // the invitation that the row refers to is revoked, so that an organization accepts another
	proved   bool  // Clerk has shown the membership of the user who is resolved
	gives    bool  // its decision gives the invitation up, instead of letting the row wait
	retries  bool  // an Invite whose member has failed in the meantime begins again; a reconciliation whose row was changed resolves its user alone
	left     bool  // this member may have other open invitations; a withdrawal must still list them
	stale    bool  // began a create after its lease
	moved    bool  // it has made the row revoked or active
	waits    bool  // a reconciliation has seen a waiting member
	second   bool  // a reconciliation handles accepted invitations; a withdrawal has found an accepted one
	looked   bool  // a reconciliation has looked up the active user; a withdrawal has found an earlier invitation accepted
	failed   bool  // the store did not respond when it wrote
	knows    bool  // the person had joined when it last had to look for users, or accepted when a withdrawal read the row; for the checks only
	open     uint8 // invitations that were open when a withdrawal read the row; for the checks only
}

// decision is an actor's decision about its row.
type decision uint8

const (
	undecided decision = iota
	isInvited
	isLinked
	isLinkedBy // by the invitation that was accepted
	isRevoked
	isAbandoned // with Config.Once: the only attempt has died
	isReleased
	isPostponed
	isUncertain // only with Config.Once; otherwise nothing is written
	isLetGo     // only without a rule: due again immediately
)

func (a *actor) keepsWaiting() bool { return a.next >= isReleased && !a.gives }

// Verb is a method of the service.
type Verb uint8

// The verbs of the model.
const (
	NoVerb Verb = iota
	Deliver
	Invite
	Resend
	Revoke
	Reconcile
	Resolve
	verbs
)

func (v Verb) String() string {
	return [...]string{"", "Deliver", "Invite", "Resend", "Revoke", "Reconcile", "ResolveUser"}[v]
}

// State has everything: the row, Clerk, the actors, and how many events may
// still occur.
type State struct {
	row         row
	invitations [maxInvitations]invitation
	user        bool // the person has signed up with the address
	member      bool // and is a member of the organization
	flights     [maxFlights]flight
	actors      [maxActors]actor
	epoch       int8

	begins     [verbs]int8 // how often each verb may still be called
	crashes    int8
	losses     int8
	cuts       int8
	ends       int8 // how often all leases may still end
	accepts    int8
	elsewhere  int8      // invitations that may still be accepted under another address
	dashboard  int8      // invitations that an operator may still revoke at Clerk
	withdrawn  bool      // a caller revoked the invitation
	disordered bool      // an actor has crashed, the person has accepted, a response was lost, or a lease has ended
	shown      Exception // for the checks only
}

// Event is one step.
type Event struct {
	Kind  Kind
	Actor int8
	Arg   int8 // a verb, an invitation or a flight
}

// Kind is a kind of step.
type Kind uint8

// The kinds of steps. An actor's step is one call to the store or to Clerk and everything that it
// concludes from the response.
const (
	Begin       Kind = iota // an actor begins with a verb, up to its first call
	GoOn                    // the call is made and gets a response
	Lost                    // no response, and no effect
	Unheard                 // an effect, but no response
	Adrift                  // no response; the create is carried out later or never
	Crash                   // the process dies before the call
	CrashAdrift             // the process dies, and the create is under way
	Land                    // such a create is carried out
	LeasesEnd               // time passes: leases have ended, and postponed rows are due
	Accept                  // the person signs up with the link of an invitation, or without one
	Elsewhere               // an invitation is accepted by a user who has another address
	Dashboard               // an operator revokes an invitation at Clerk
)

func (e Event) String() string {
	switch e.Kind {
	case Begin:
		return fmt.Sprintf("%c begins %v", 'A'+e.Actor, Verb(e.Arg))
	case Land:
		return "a late create arrives"
	case LeasesEnd:
		return "leases end"
	case Accept:
		if e.Arg == 0 {
			return "the person signs up without an invitation"
		}
		return fmt.Sprintf("invitation %d is accepted", e.Arg)
	case Elsewhere:
		return fmt.Sprintf("invitation %d is accepted under another address", e.Arg)
	case Dashboard:
		return fmt.Sprintf("invitation %d is revoked in the dashboard", e.Arg)
	default:
		what := [...]string{"", "goes on", "gets no response, without an effect", "gets no response, with the effect", "gets no response, the effect may come later",
			"dies", "dies, its create is under way"}[e.Kind]
		return fmt.Sprintf("%c %s", 'A'+e.Actor, what)
	}
}

// Config bounds one exploration.
type Config struct {
	Name    string
	Actors  int
	Begins  map[Verb]int8
	Crashes int8
	Losses  int8 // lost responses from Clerk
	Cuts    int8 // lost responses from the store
	Ends    int8 // how often all leases end

	Accepts   int8
	Elsewhere int8
	Dashboard int8

	Reserved bool // the row exists from the beginning; otherwise only Invite writes it
	Foreign  bool // another application has a pending invitation for the address
	Once     bool // Config.WithdrawOnFailure: each invitation is tried once
	Late     bool // leases can end while a create is under way, such as after a machine slept or a clock was set
	Without  Rule // the removed rule

	Organization bool // all invitations are into one organization
	AddExisting  bool // its attempts add users who are not members
}

// Start returns the first state.
func (c *Config) Start() State {
	s := State{crashes: c.Crashes, losses: c.Losses, cuts: c.Cuts, ends: c.Ends, accepts: c.Accepts, elsewhere: c.Elsewhere, dashboard: c.Dashboard}
	for v, n := range c.Begins {
		s.begins[v] = n
	}
	if c.Reserved {
		s.row = row{status: reserved, send: 1, version: 1}
	}
	if c.Foreign {
		s.invitations[0] = invitation{status: pending}
	}
	return s
}

// Events returns the possible next events.
func (c *Config) Events(s *State) []Event {
	events := make([]Event, 0, 24)
	add := func(k Kind, actor, arg int) { events = append(events, Event{k, int8(actor), int8(arg)}) }
	creating, idle := s.flights[0].send > 0, false
	for i := range c.Actors {
		a := &s.actors[i]
		if a.verb == NoVerb {
			if idle { // idle actors are equivalent
				continue
			}
			idle = true
			for v := range verbs {
				if s.begins[v] > 0 && c.useful(s, v) {
					add(Begin, i, int(v))
				}
			}
			continue
		}
		add(GoOn, i, 0)
		creating = creating || a.pc == pcCreate || a.pc == pcAdd
		if s.losses > 0 {
			switch {
			case a.pc == pcCreate:
				add(Adrift, i, 0)
			case a.pc.revokes(), a.pc == pcAdd:
				add(Lost, i, 0)
				add(Unheard, i, 0)
			case a.pc.asksClerk():
				add(Lost, i, 0)
			}
		}
		if s.cuts > 0 && !a.pc.asksClerk() {
			add(Lost, i, 0)
			if a.pc.writes() {
				add(Unheard, i, 0)
			}
		}
		if s.crashes > 0 {
			add(Crash, i, 0)
			if a.pc == pcCreate {
				add(CrashAdrift, i, 0)
			}
		}
	}
	for i, f := range s.flights {
		if f.send > 0 {
			add(Land, 0, i)
		}
	}
	if s.ends > 0 && (c.Late || !creating) {
		add(LeasesEnd, 0, 0)
	}
	if s.accepts > 0 && !s.user {
		add(Accept, 0, 0)
	}
	for i, inv := range s.invitations {
		if inv.status != pending {
			continue
		}
		if s.accepts > 0 {
			add(Accept, 0, i+1)
		}
		if s.elsewhere > 0 {
			add(Elsewhere, 0, i+1)
		}
		if s.dashboard > 0 && inv.send > 0 {
			add(Dashboard, 0, i+1)
		}
	}
	return events
}

// useful leaves out calls that only read and find nothing.
func (c *Config) useful(s *State, v Verb) bool {
	switch v {
	case Deliver:
		return s.row.due() && s.row.next <= s.epoch
	case Resolve:
		return s.user
	case Resend, Revoke, Reconcile:
		return s.row.status != none
	default:
		return true
	}
}

// step is one event being applied.
type step struct {
	*Config
	*State
	bad string
}

// Next returns the state after an event, and what is wrong with the event, if anything.
func (c *Config) Next(s *State, e Event) (State, string) {
	after := *s
	m := &step{Config: c, State: &after}
	var a *actor
	if e.Kind <= CrashAdrift {
		a = &after.actors[e.Actor]
	}
	switch e.Kind {
	case Begin:
		after.begins[e.Arg]--
		m.begin(a, Verb(e.Arg))
	case GoOn:
		m.goOn(a)
	case Lost, Unheard:
		after.disordered = true
		if a.pc.asksClerk() {
			after.losses--
		} else {
			after.cuts--
		}
		if e.Kind == Unheard {
			m.effect(a)
		}
		m.unanswered(a)
	case Adrift:
		after.losses--
		after.disordered = true
		m.fly(a)
		m.uncertain(a)
	case Crash, CrashAdrift:
		after.crashes--
		after.disordered = true
		if e.Kind == CrashAdrift {
			m.fly(a)
		}
		*a = actor{}
	case Land:
		f := after.flights[e.Arg]
		copy(after.flights[e.Arg:], after.flights[e.Arg+1:])
		after.flights[maxFlights-1] = flight{}
		m.create(f)
	case LeasesEnd:
		after.ends--
		after.epoch++
		after.disordered = true
	case Accept:
		after.accepts--
		if e.Arg > 0 {
			after.invitations[e.Arg-1].status = accepted
			after.member = c.Organization
		}
		after.user, after.disordered = true, true
	case Elsewhere:
		after.elsewhere--
		after.invitations[e.Arg-1].status = accepted
		after.disordered = true
	case Dashboard:
		after.dashboard--
		after.withdrawn = true
		after.invitations[e.Arg-1].status = revoked
	}
	if m.bad == "" && after.row.status == active && !c.joined(&after) {
		m.bad = "active without a proof"
	}
	return after, m.bad
}

// joined reports whether the person has joined: a user has the address and, for an organization, is a member.
func (c *Config) joined(s *State) bool { return s.user && (s.member || !c.Organization) }

// fail records what is wrong.
func (m *step) fail(what string) {
	if m.bad == "" {
		m.bad = what
	}
}

// update is a compare-and-swap of the row.
func (m *step) update(was, next row) bool {
	if m.row.version != was.version {
		return false
	}
	if m.row.status == failed && next.status != reserved {
		m.fail("a withdrawn invitation comes back")
	}
	next.version = m.row.version + 1
	if !next.due() {
		next.held, next.next = 0, 0
	}
	m.row = next
	return true
}

// effect is the effect of a call whose response is lost.
func (m *step) effect(a *actor) {
	if a.pc.revokes() {
		m.revokeAtClerk(a, a.revoking())
		return
	}
	copied := *a // its conclusions from the response are lost
	m.goOn(&copied)
}

// fly starts a create without a caller.
func (m *step) fly(a *actor) {
	for i := range m.flights {
		if m.flights[i].send == 0 {
			m.flights[i] = m.request(a)
			return
		}
	}
	m.fail("too many creates are under way")
}

func (m *step) request(a *actor) flight {
	return flight{send: a.row.send, epoch: a.lease, ignore: a.others || !m.has(IgnoreOnlySeen), known: a.others, stale: a.stale, knows: a.knows}
}

// create is Clerk's create: it returns the invitation, or 0 if Clerk rejects a duplicate.
func (m *step) create(f flight) int8 {
	free := -1
	for i := len(m.invitations) - 1; i >= 0; i-- {
		switch m.invitations[i].status {
		case none:
			free = i
		case pending:
			if !f.ignore {
				return 0
			}
		default:
		}
	}
	if m.joined(m.State) && !f.ignore {
		return 0
	}
	if free < 0 {
		m.fail("too many invitations")
		return 0
	}
	if f.knows {
		m.fail("an email to a person who had joined")
	}
	made := invitation{status: pending, send: f.send, late: f.epoch != m.epoch && !f.stale, ignore: f.known}
	for _, inv := range m.invitations {
		if inv.send != f.send {
			continue
		}
		switch {
		case inv.late && inv.ignore || made.late && made.ignore:
			m.shown |= LateIgnoring
		case (inv.late || made.late) && m.withdrawn:
			m.shown |= LateWithdrawn
		default:
			m.fail("two emails for one send")
		}
	}
	m.invitations[free] = made
	return int8(free + 1)
}

// Exception is a case that is not promised and occurs in some traces.
type Exception uint8

// Both are second emails for one send. Clerk carries out a create after its lease, because
// a machine slept, a clock was set, or the network delayed the request for very long.
const (
	LateIgnoring  Exception = 1 << iota // with ignore_existing=true, so that Clerk does not reject it
	LateWithdrawn                       // the other invitation was revoked in the meantime, so that Clerk does not reject it
)

// revokeAtClerk revokes an invitation, unless it was accepted.
func (m *step) revokeAtClerk(a *actor, inv int8) {
	i := &m.invitations[inv-1]
	if i.status == accepted {
		return
	}
	resends := a.pc == pcOlderRevoke && m.row.due()
	if a.verb != Revoke && !resends && i.status == pending && m.row.status == pending && m.row.inv == inv {
		m.fail("the invitation that the row names is revoked as if it were left over")
	}
	i.status = revoked
}

// list returns the invitations that Clerk lists: of one status, or all except revoked ones.
func (m *step) list(only status) (seen [maxInvitations]status) {
	for i, inv := range m.invitations {
		if inv.status == none || only == none && inv.status == revoked || only != none && inv.status != only {
			continue
		}
		seen[i] = inv.status
	}
	return seen
}

// keeps reports whether an invitation is not a left-over.
func (m *step) keeps(r row, inv int8) bool {
	send := m.invitations[inv-1].send
	switch {
	case send > r.send:
		return true
	case r.status != reserved && r.status != pending:
		return false
	}
	return r.inv == inv || r.sent < r.send && send == r.send
}

// leftOver returns the listed invitations that are not kept. The previous one may be another application's that the row
// had adopted.
func (m *step) leftOver(r row, seen [maxInvitations]status, previous int8) (todo uint8) {
	for i, s := range seen {
		if s == pending && (m.invitations[i].send > 0 || i+1 == int(previous)) && !m.keeps(r, int8(i+1)) {
			todo |= 1 << i
		}
	}
	return todo
}

// revoking returns the invitation that an actor revokes next.
func (a *actor) revoking() int8 {
	switch {
	case a.pc == pcRevokeMine:
		return a.made
	case a.pc != pcSweepRevoke && a.row.status == pending && a.todo&(1<<(a.row.inv-1)) != 0:
		return a.row.inv // the row's first
	case a.pc == pcSweepRevoke && a.previous > 0 && a.todo&(1<<(a.previous-1)) != 0:
		return a.previous // as well
	}
	return int8(bits.TrailingZeros8(a.todo) + 1)
}
