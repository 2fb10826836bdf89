package modeltest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// The verbs, grouped by what they may do to a member.
var (
	inviting   = []verb{invite, inviteMany, reserve, reserveMany}
	delivering = []verb{invite, inviteMany, deliver, resend}
	resolving  = []verb{invite, inviteMany, deliver, resend, event, resolve, resolveUser, reconcile, revoke, remove}
)

// move is a state change; "" is the state before a member exists.
type move struct{ from, to clerkinvite.Status }

// moves are the allowed state changes, with the verbs that may make them.
var moves = map[move][]verb{
	{"", clerkinvite.StatusReserved}: inviting,
	{"", clerkinvite.StatusActive}:   {adopt},
	{"", clerkinvite.StatusPending}:  {adopt},

	{clerkinvite.StatusReserved, clerkinvite.StatusPending}: delivering,
	{clerkinvite.StatusReserved, clerkinvite.StatusActive}:  resolving,
	{clerkinvite.StatusReserved, clerkinvite.StatusFailed}:  delivering,
	{clerkinvite.StatusReserved, clerkinvite.StatusRevoked}: append([]verb{revoke}, delivering...),
	{clerkinvite.StatusReserved, clerkinvite.StatusExpired}: delivering,
	{clerkinvite.StatusReserved, clerkinvite.StatusRemoved}: resolving,

	{clerkinvite.StatusPending, clerkinvite.StatusActive}:   resolving,
	{clerkinvite.StatusPending, clerkinvite.StatusExpired}:  append([]verb{reconcile}, delivering...),
	{clerkinvite.StatusPending, clerkinvite.StatusRevoked}:  append([]verb{revoke, reconcile}, delivering...),
	{clerkinvite.StatusPending, clerkinvite.StatusRemoved}:  resolving,
	{clerkinvite.StatusPending, clerkinvite.StatusReserved}: inviting,

	{clerkinvite.StatusActive, clerkinvite.StatusRemoved}: {remove, event, reconcile, invite},

	{clerkinvite.StatusFailed, clerkinvite.StatusReserved}:  inviting,
	{clerkinvite.StatusRevoked, clerkinvite.StatusReserved}: inviting,
	{clerkinvite.StatusExpired, clerkinvite.StatusReserved}: inviting,
	{clerkinvite.StatusExpired, clerkinvite.StatusRevoked}:  {revoke},
	{clerkinvite.StatusExpired, clerkinvite.StatusRemoved}:  {remove},
	{clerkinvite.StatusRemoved, clerkinvite.StatusReserved}: inviting,

	{clerkinvite.StatusExpired, clerkinvite.StatusActive}: resolving,
}

// lease and cooldown are the defaults of clerkinvite.Config.
const (
	lease    = time.Minute
	cooldown = time.Minute
)

// oracle is the knowledge of the store, which it reads completely after every step.
type oracle struct {
	rows      []*clerkinvite.Member // the current rows, in the order of tenant and ID
	chains    map[string][]clerkinvite.HistoryEntry
	committed map[version]*clerkinvite.Member // every state that a row ever had
	holders   map[mark]*task                  // the last task to claim a send
	attempted map[mark]bool                   // sends with an attempt that has not released its claim
	cutShort  map[mark]bool                   // sends with an attempt that did not release its claim before the next began
	purged    map[string]purged               // by member id
	closed    map[string]closing              // limited endpoints, as all processes know them
	actives   map[string]int                  // the last step in which a user was active in a tenant
	counted   map[string]int                  // invitations by the step in which they were created

	withdrawals map[string]*task // the last to revoke or remove a member, by member id
}

type version struct {
	id     string
	number int64
}

// purged is a member who was erased.
type purged struct {
	ref   clerkinvite.Ref
	since int // the step whose state Clerk's lists showed when the purge began
	done  int // the step in which the row was erased

	listed []string // the addresses that the row had during the purge
}

// closing is a limit of an endpoint, and since when all processes can know it.
type closing struct {
	until time.Time
	step  int
}

func (s *sequence) makeOracle() {
	s.chains, s.committed = map[string][]clerkinvite.HistoryEntry{}, map[version]*clerkinvite.Member{}
	s.holders, s.attempted, s.cutShort, s.purged = map[mark]*task{}, map[mark]bool{}, map[mark]bool{}, map[string]purged{}
	s.closed, s.actives, s.counted = map[string]closing{}, map[string]int{}, map[string]int{}
	s.withdrawals = map[string]*task{}
}

// row returns the current row with the ID, or nil.
func (s *sequence) row(id string) *clerkinvite.Member { return byID(s.rows, id) }

func byID(rows []*clerkinvite.Member, id string) *clerkinvite.Member {
	for _, m := range rows {
		if m.ID == id {
			return m
		}
	}
	return nil
}

func byRef(rows []*clerkinvite.Member, ref clerkinvite.Ref) *clerkinvite.Member {
	for _, m := range rows {
		if m.Ref() == ref {
			return m
		}
	}
	return nil
}

func byStatus(rows []*clerkinvite.Member, status clerkinvite.Status) *clerkinvite.Member {
	for _, m := range rows {
		if m.Status == status {
			return m
		}
	}
	return nil
}

// observe reads the whole store, after t may have changed it.
func (s *sequence) observe(t *task) {
	rows, err := s.store.page(clerkinvite.PageQuery{Limit: 1000})
	if err != nil {
		s.failf("store: cannot be read: %v", err)
		return
	}
	before := s.rows
	s.rows = rows
	for _, m := range slices.Concat(before, rows) {
		if m.Status == clerkinvite.StatusActive {
			s.actives[m.TenantID+"/"+m.ClerkUserID] = s.step
		}
	}
	for _, m := range rows {
		s.represented(m)
		switch old := byID(before, m.ID); {
		case old == nil:
			s.appeared(t, m)
		case old.Version != m.Version:
			s.moved(t, old, m)
		case !same(old, m):
			s.failf("version: %s changed without a new version", s.named(m))
		}
	}
	for _, old := range before {
		if s.row(old.ID) == nil {
			s.erased(t, old)
		}
	}
	s.usable()
}

// represented checks the rules for every row at any time, also in relation to all others.
func (s *sequence) represented(m *clerkinvite.Member) {
	var fine bool
	switch m.Status {
	case clerkinvite.StatusPending:
		fine = m.InvitationID != "" && m.ClerkUserID == "pending_"+m.InvitationID
	case clerkinvite.StatusActive:
		fine = m.ClerkUserID != "" && !strings.HasPrefix(m.ClerkUserID, "pending_")
	default:
		fine = m.ClerkUserID == ""
	}
	if !fine {
		s.failf("representation: %s is %s with the Clerk user ID %q", s.named(m), m.Status, m.ClerkUserID)
	}
	if m.Sent > m.Send || m.Sent < 0 {
		s.failf("send: %s has settled %d of %d", s.named(m), m.Sent, m.Send)
	}
	if !m.URL.IsZero() && (m.Status != clerkinvite.StatusPending || m.Email != mailedByHost) {
		s.failf("url: the link of %s is stored, although the member is %s", s.named(m), m.Status)
	}
	for _, other := range s.rows {
		if other == m || other.TenantID != m.TenantID {
			continue
		}
		if other.Email == m.Email {
			s.failf("two rows: %s", s.named(m))
		}
		if m.Status == clerkinvite.StatusActive && other.Status == clerkinvite.StatusActive && other.ClerkUserID == m.ClerkUserID {
			s.failf("two active: %s and %s", s.named(m), s.named(other))
		}
	}
}

// appeared checks a new row.
func (s *sequence) appeared(t *task, m *clerkinvite.Member) {
	if !slices.Contains(moves[move{"", m.Status}], t.verb) {
		s.failf("move: %s created %s as %s", t.name, s.named(m), m.Status)
	}
	if _, gone := s.purged[m.ID]; gone {
		s.failf("identity: %s created %s with the ID of an erased member", t.name, s.named(m))
	}
	if m.Version != 1 || m.Send != 1 || m.Sent != 0 && t.verb != adopt {
		s.failf("new: %s has version %d, send %d, sent %d", s.named(m), m.Version, m.Send, m.Sent)
	}
	if m.Status == clerkinvite.StatusPending {
		s.adopted[m.InvitationID], s.entrusted[m.InvitationID] = true, true
	}
	s.sayf("%s: + %s", t.name, state{m})
	s.claimed(t, nil, m)
	s.record(t, nil, m)
}

// erased checks that a row was erased for a valid reason.
func (s *sequence) erased(t *task, old *clerkinvite.Member) {
	s.sayf("%s: - %s", t.name, state{old})
	if (t.verb != purge || !s.had(old, t.ref)) && !s.makesWay(t, old) {
		s.failf("erased: %s erased %s", t.name, s.named(old))
	}
	if held(old, s.now()) && s.holders[mark{old.ID, old.Send}] != t {
		s.failf("erased: %s erased %s while an attempt has claimed it", t.name, s.named(old))
	}
	if id := old.InvitationID; s.open(id) && (!s.adopted[id] || s.entrusted[id] && !s.waitedFor(s.rows, id)) {
		s.failf("withdrawn: %s erased %s and left its %s open", t.name, s.named(old), old.InvitationID)
	}
	listed := []string{old.Email}
	for _, m := range t.claimedRows {
		if m.ID == old.ID {
			listed = append(listed, m.Email)
		}
	}
	s.purged[old.ID] = purged{old.Ref(), t.shown, s.step, listed}
	delete(s.added, old.ClerkUserID) // a purge does not end the membership
	delete(s.chains, old.ID)
	moves, err := s.store.history(old.TenantID, old.ID)
	if err != nil || len(moves) > 0 {
		s.failf("erased: %s still has %d history entries, %v", s.named(old), len(moves), err)
	}
}

// makesWay reports whether a task may erase a member for an active member: it was a second address of that member's user,
// and is now the user's address.
func (s *sequence) makesWay(t *task, m *clerkinvite.Member) bool {
	if !slices.Contains(resolving, t.verb) || t.verb == resolve || m.Status != clerkinvite.StatusRemoved || m.Reason != clerkinvite.ReasonSecondAddress {
		return false
	}
	return slices.ContainsFunc(s.order, func(id string) bool {
		since, active := s.actives[m.TenantID+"/"+id]
		return active && since >= t.began && s.users[id].ever(s.since(t), func(at moment) bool { return primary(at.User) == m.Email })
	})
}

func held(m *clerkinvite.Member, now time.Time) bool {
	return m.ClaimedUntil != nil && m.ClaimedUntil.After(now)
}

func overdue(m *clerkinvite.Member, now time.Time) bool {
	return m.Status == clerkinvite.StatusExpired || m.Status == clerkinvite.StatusPending && m.ExpiresAt != nil && !m.ExpiresAt.After(now)
}

// moved checks one change of one row.
func (s *sequence) moved(t *task, old, m *clerkinvite.Member) {
	s.sayf("%s: %s -> %s", t.name, state{old}, state{m})
	if m.Version != old.Version+1 {
		s.failf("version: %s went from %d to %d", s.named(m), old.Version, m.Version)
	}
	if m.TenantID != old.TenantID {
		s.failf("identity: %s became %s", s.named(old), s.named(m))
	}
	if m.Email != old.Email {
		s.followed(t, old, m)
	}
	if m.Sent < old.Sent {
		s.failf("send: %s went from sent %d to %d", s.named(m), old.Sent, m.Sent)
	}
	revoked := t.verb == event && inOrganization(m) && old.Status == clerkinvite.StatusPending && (m.Status == clerkinvite.StatusRevoked || m.Status == clerkinvite.StatusExpired)
	if old.Status != m.Status && !slices.Contains(moves[move{old.Status, m.Status}], t.verb) && !revoked {
		s.failf("move: %s moved %s from %s to %s", t.name, s.named(m), old.Status, m.Status)
	}
	if (m.Role != old.Role || m.InvitedBy != old.InvitedBy || !sameJSON(m.Data, old.Data)) && t.verb != update && !slices.Contains(inviting, t.verb) {
		s.failf("fields: %s changed the host's fields of %s", t.name, s.named(m))
	}
	renewed := m.Status == clerkinvite.StatusReserved && old.Status != clerkinvite.StatusReserved
	resent := m.Status == clerkinvite.StatusPending && old.Status == clerkinvite.StatusPending && t.verb == resend && m.Send == old.Send+1
	switch {
	case renewed && m.Send != old.Send+1, !renewed && !resent && m.Send != old.Send:
		s.failf("send: %s took %s from %d to %d", t.name, s.named(m), old.Send, m.Send)
	case renewed && m.Sent != old.Sent, renewed && held(old, s.now()):
		s.failf("send: %s started another send of %s while send %d was under way", t.name, s.named(m), old.Send)
	case renewed && old.Status == clerkinvite.StatusPending && !overdue(old, s.now()):
		s.failf("move: %s started another send of %s, which was not overdue", t.name, s.named(m))
	case resent && old.InvitedAt != nil && s.now().Before(old.InvitedAt.Add(cooldown)) &&
		(old.SettledAt == nil || !old.SettledAt.Before(old.InvitedAt.Add(-time.Second))): // otherwise a clock was set, and the store's could not be read
		s.failf("cooldown: %s resent %s too early", t.name, s.named(m))
	}
	if m.Send == old.Send && !bytes.Equal(m.Params, old.Params) && slices.ContainsFunc(s.invitations(m.Email), func(inv invitation) bool {
		return inv.member == m.ID && inv.send == m.Send
	}) {
		s.failf("parameters: %s changed those of %s, although its invitation exists", t.name, s.named(m))
	}
	if old.Reason == clerkinvite.ReasonBulkRejected && m.Status == clerkinvite.StatusReserved && m.Reason == "" && slices.Contains(inviting, t.verb) {
		s.cutShort[mark{m.ID, m.Send}] = true // given up for an invitation with other parameters
	}
	s.claimed(t, old, m)
	switch {
	case m.Status == clerkinvite.StatusActive && old.Status != clerkinvite.StatusActive:
		s.joined(t, old, m)
	case m.Status == clerkinvite.StatusPending && m.InvitationID != old.InvitationID:
		s.invited(t, old, m)
	case m.Status == clerkinvite.StatusPending && m.Sent != old.Sent && !t.refuses(m) && !s.barred(t, m.Email) && !triedOnce(m):
		s.failf("refused: %s settled send %d of %s on the older invitation, which Clerk has not refused", t.name, m.Send, s.named(m))
	case m.Status != old.Status:
		s.ended(t, old, m)
	}
	s.record(t, old, m)
}

// followed checks that a member has another address because its user has.
func (s *sequence) followed(t *task, old, m *clerkinvite.Member) {
	if old.Status != clerkinvite.StatusActive || m.Status != clerkinvite.StatusActive || m.ClerkUserID != old.ClerkUserID || !slices.Contains(resolving, t.verb) {
		s.failf("identity: %s changed %s into %s", t.name, s.named(old), s.named(m))
		return
	}
	p := s.users[m.ClerkUserID]
	if p == nil || !p.ever(s.since(t), func(at moment) bool { return left(at.User, old.Email) && primary(at.User) == m.Email }) {
		s.failf("address: %s changed %s into %s, although the user has not", t.name, s.named(old), s.named(m))
	}
}

// claimed checks and notes that a change is a claim.
func (s *sequence) claimed(t *task, old, m *clerkinvite.Member) {
	of := mark{m.ID, m.Send}
	switch {
	case m.ClaimedUntil != nil && old != nil && old.ClaimedUntil != nil && old.ClaimedUntil.Equal(*m.ClaimedUntil):
		return
	case !held(m, m.UpdatedAt) && (old == nil || m.Attempts <= old.Attempts), // the row has no claim, or its claim has ended
		old != nil && m.ClaimedUntil != nil && m.ClaimedUntil.Equal(old.UpdatedAt): // a process whose clock is behind wrote a claim that has ended
		if t.verb != purge { // Purge restores the attempt's claim
			delete(s.attempted, of)
		}
		return
	}
	mayClaim := slices.Contains(delivering, t.verb) && (t.verb != deliver || t.ref == (clerkinvite.Ref{}) || t.ref == m.Ref())
	if !mayClaim && t.verb != purge && !s.makesWay(t, m) {
		s.failf("claim: %s claimed %s", t.name, s.named(m))
	}
	// A change whose time is far in the future was written by a process whose clock was set while it could not read the
	// store's. The library ignores such a claim.
	if old != nil && held(old, s.now()) && old.UpdatedAt.Before(s.now().Add(4*time.Minute)) {
		if by := s.holders[mark{old.ID, old.Send}]; by != t {
			s.failf("claim: %s claimed %s, which %s had claimed", t.name, s.named(m), by.name)
		}
	}
	// A call that waited for the insert claims its row again, for the same attempt. A purge does too, and may give the claim back.
	again := old != nil && m.Attempts == old.Attempts
	s.cutShort[of] = s.cutShort[of] || s.attempted[of] && !again
	s.attempted[of] = s.attempted[of] || t.verb != purge
	s.holders[of] = t
	t.claimedRows = append(t.claimedRows, m)
	t.claims[of] = m.ClaimedUntil.Add(grain - 1 - lease).Truncate(grain) // without the random part
}

// record checks the history entry of a change.
func (s *sequence) record(t *task, old, m *clerkinvite.Member) {
	s.committed[version{m.ID, m.Version}] = m
	if old == nil {
		old = &clerkinvite.Member{}
	}
	if old.Status == m.Status && old.Send == m.Send && old.Sent == m.Sent && old.ClerkUserID == m.ClerkUserID && old.InvitationID == m.InvitationID &&
		old.Role == m.Role && old.Email == m.Email {
		if m.ChangedBy != old.ChangedBy {
			s.failf("actor: %s became the actor of %s, although its change is not recorded", t.name, s.named(m))
		}
		return
	}
	if m.ChangedBy != t.actor {
		s.failf("actor: %s changed %s as %q", t.name, s.named(m), m.ChangedBy)
	}
	s.chains[m.ID] = append(s.chains[m.ID], clerkinvite.HistoryEntry{
		Version: m.Version, From: old.Status, To: m.Status, Send: m.Send, Sent: m.Sent,
		ClerkUserID: m.ClerkUserID, InvitationID: m.InvitationID, Role: m.Role, Reason: m.Reason, Actor: m.ChangedBy, At: m.UpdatedAt,
	})
	s.remembered(m)
}

// remembered checks the history of a row against the observed changes.
func (s *sequence) remembered(m *clerkinvite.Member) {
	moves, err := s.store.history(m.TenantID, m.ID)
	if err != nil {
		s.failf("store: history cannot be read: %v", err)
		return
	}
	if !slices.EqualFunc(moves, s.chains[m.ID], func(a, b clerkinvite.HistoryEntry) bool {
		at := a.At.Equal(b.At)
		a.At, b.At = time.Time{}, time.Time{}
		return at && a == b
	}) {
		s.failf("history: %s has %+v instead of %+v", s.named(m), moves, s.chains[m.ID])
	}
}

// joined checks that a member has become active by proof only.
func (s *sequence) joined(t *task, old, m *clerkinvite.Member) {
	if m.Sent != m.Send {
		s.failf("settled: %s is active with send %d of %d", s.named(m), m.Sent, m.Send)
	}
	p := s.users[m.ClerkUserID]
	if p == nil || !s.proven(t, p, m.Email) {
		s.failf("proof: %s made %s active as %s, who had not verified the address then", t.name, s.named(m), m.ClerkUserID)
		return
	}
	if inOrganization(m) && !s.wasMember(t, p) {
		s.failf("proof: %s made %s active as %s, who was no member of the organization", t.name, s.named(m), m.ClerkUserID)
	}
	// For an invitation that expired before the verb began, a verified
	// address is not enough, except during a resend.
	if overdue(old, t.beganAt) && old.Sent == old.Send {
		inv := s.invitation(old.InvitationID)
		accepted := inv != nil && inv.Status == clerkinvite.InvitationAccepted
		inTime := old.InvitedAt != nil && old.ExpiresAt != nil && !p.CreatedAt.Before(*old.InvitedAt) && !p.CreatedAt.After(*old.ExpiresAt)
		if !accepted && !inTime {
			s.failf("overdue: %s made %s active, whose invitation had expired", t.name, s.named(m))
		}
	}
}

// proven reports whether the user had verified the address and was not barred at some moment
// since the task began or, if Clerk's responses lag, at any moment.
func (s *sequence) proven(t *task, p *person, email string) bool {
	return p.ever(s.since(t), func(at moment) bool { return !at.deleted && !barred(at.User) && holds(at.User, email) })
}

// since returns the first step whose state Clerk may have shown to the task.
func (s *sequence) since(t *task) int {
	if s.behavior.Behavior.Lag || s.behavior.Behavior.GetUserLags {
		return 0
	}
	return t.began
}

// barred reports whether Clerk may have shown the task a barred user who has verified the address.
func (s *sequence) barred(t *task, email string) bool {
	return slices.ContainsFunc(s.order, func(id string) bool {
		return s.users[id].ever(s.since(t), func(at moment) bool { return barred(at.User) && holds(at.User, email) })
	})
}

// invited checks that a row has become pending on its own invitation, or that it may have adopted another one.
func (s *sequence) invited(t *task, old, m *clerkinvite.Member) {
	inv := s.invitation(m.InvitationID)
	switch {
	case !slices.Contains(delivering, t.verb):
		s.failf("move: %s invited %s", t.name, s.named(m))
	case inv == nil && s.vanished(m):
	case inv == nil:
		s.failf("invitation: %s waits for %s, which does not exist", s.named(m), m.InvitationID)
	case (s.bare[inv.ID] || inOrganization(m) && old.Status == clerkinvite.StatusReserved && (inv.member != m.ID || inv.send < m.Send && (s.waitedFor(t.before, inv.ID) || s.waitedFor(t.seen, inv.ID)))) && inv.OrganizationID == organizationOf(m) && m.Sent == m.Send && m.Email == inv.Email: // adopted: it may have been this send's
		s.adopted[inv.ID] = true
	case inv.member != m.ID || inv.send != m.Send || m.Sent != m.Send || inv.Email != m.Email:
		s.failf("invitation: %s waits in send %d for %s, which belongs to another member or to send %d", s.named(m), m.Send, inv.ID, inv.send)
	case m.InvitedAt == nil || !m.InvitedAt.Equal(inv.CreatedAt):
		s.failf("invitation: %s was invited at %v instead of %v", s.named(m), m.InvitedAt, inv.CreatedAt)
	case m.ExpiresAt == nil || inv.ExpiresAt != nil && !s.shortened[inv.ID] && !m.ExpiresAt.Equal(*inv.ExpiresAt):
		s.failf("invitation: %s expires at %v instead of %v", s.named(m), m.ExpiresAt, inv.ExpiresAt)
	case m.URL.IsZero() && s.behavior.Behavior.ListHidesURL: // perhaps found in the list
	case (!m.URL.IsZero()) != (m.Email == mailedByHost && !inv.URL.IsZero()):
		s.failf("url: %s has %q", s.named(m), m.URL.Reveal())
	}
}

// ended checks a member that has entered a state other than pending and active.
func (s *sequence) ended(t *task, old, m *clerkinvite.Member) {
	inv := s.invitation(m.InvitationID)
	if last, ok := s.vanishedInvitations[m.InvitationID]; ok && s.vanished(m) {
		inv = &last
	}
	switch m.Status {
	case clerkinvite.StatusFailed:
		withdrawn := m.Reason == clerkinvite.ReasonWithdrawn
		if withdrawn && !triedOnce(m) {
			s.failf("failed: %s withdrew %s, which must be tried again", t.name, s.named(m))
		}
		s.mayWithdraw(t, m)
		if m.Reason == "" || !withdrawn && !t.refuses(m) && !s.barred(t, m.Email) {
			s.failf("failed: %s failed %s with the reason %q, although Clerk has not refused", t.name, s.named(m), m.Reason)
		}
	case clerkinvite.StatusExpired:
		// It may have been revoked since Clerk listed it as expired, or accepted under another address.
		unlisted := overdue(old, s.now()) && (s.vanished(m) || inv == nil && s.entrusted[m.InvitationID])
		if !unlisted && (inv == nil || inv.Status == clerkinvite.InvitationPending) {
			s.failf("expired: %s expired %s, whose invitation is %v", t.name, s.named(m), inv)
		}
	case clerkinvite.StatusRevoked, clerkinvite.StatusRemoved:
		asked := (t.verb == revoke || t.verb == remove) && m.Reason != clerkinvite.ReasonSecondAddress
		if asked {
			s.withdrawals[m.ID] = t
		}
		t.withdrew = t.withdrew || asked && (old.Status != clerkinvite.StatusActive || inOrganization(m)) // Reconcile revokes the application's open invitations of active members
		if asked && !t.meant(m) {
			s.failf("withdrawn: %s withdrew %s", t.name, s.named(m))
		}
		if asked && old.Status == clerkinvite.StatusPending && s.open(old.InvitationID) {
			s.failf("withdrawn: %s withdrew %s, but not its invitation", t.name, s.named(m))
		}
		own := inv != nil && (inv.member == m.ID || s.adopted[inv.ID])
		// Without a new invitation, a resend ends if its older one has expired, or if Clerk does not know it or its organization.
		withoutLink := replaces(old) && (t.refuses(m) || m.Reason == clerkinvite.ReasonWithdrawn && triedOnce(m)) &&
			(own && (inv.Status == clerkinvite.InvitationExpired || t.orgUnknown) || s.vanished(m) || inv == nil && s.entrusted[m.InvitationID])
		if !asked && m.Status == clerkinvite.StatusRevoked && !withoutLink && (!own || inv.Status != clerkinvite.InvitationRevoked) {
			s.failf("revoked: %s revoked %s, whose invitation is not revoked", t.name, s.named(m))
		}
		if !asked && m.Status == clerkinvite.StatusRemoved {
			s.removed(t, old, m)
		}
	default:
	}
}

// triedOnce reports whether the member's invitation is withdrawn if the first attempt fails.
func triedOnce(m *clerkinvite.Member) bool { return withdrawal(m) != "" }

// withdrawal is when the member's invitation is withdrawn: "" for never, "failure", or "delay", which includes rate limits.
func withdrawal(m *clerkinvite.Member) string {
	var p struct {
		Withdraw string `json:"withdraw"`
	}
	_ = json.Unmarshal(m.Params, &p)
	return p.Withdraw
}

// mayWithdraw checks that a member that may wait for a rate limit was withdrawn for another reason.
func (s *sequence) mayWithdraw(t *task, m *clerkinvite.Member) {
	of := mark{m.ID, m.Send}
	noTimeToCreate := s.now().Sub(t.claims[of]) >= lease/2
	otherReason := t.failed || t.storeFailed || t.cancelled || t.tooLate || noTimeToCreate || s.cutShort[of] || s.barred(t, m.Email)
	if m.Reason == clerkinvite.ReasonWithdrawn && withdrawal(m) == "failure" && !otherReason {
		s.failf("withdrawn: %s withdrew %s, which may wait for a rate limit", t.name, s.named(m))
	}
}

// removed checks that a member without a call of Remove was removed for a valid reason.
func (s *sequence) removed(t *task, old, m *clerkinvite.Member) {
	if old.Status == clerkinvite.StatusActive {
		p := s.users[old.ClerkUserID]
		deleted := p != nil && p.deleted && m.Reason == clerkinvite.ReasonUserDeleted
		// If the organization was deleted, the event that the user left it is believed. Reconcile believes only a list.
		left := p != nil && inOrganization(m) && m.Reason == clerkinvite.ReasonLeftOrganization &&
			(s.wasNoMember(t, p) || t.orgEmpty && t.verb == event)
		if !deleted && !left {
			s.failf("removed: %s removed %s, whose user exists", t.name, s.named(m))
		}
		if s.quiet && t.verb == reconcile && m.Reason == clerkinvite.ReasonUserDeleted && !s.keyProven(t.before, old) { // otherwise Clerk may have shown more a moment ago
			s.failf("key: %s removed %s, although Clerk shows no member as old", t.name, s.named(m))
		}
		return
	}
	for _, id := range s.order {
		p := s.users[id]
		if m.Reason != clerkinvite.ReasonSecondAddress || !s.proven(t, p, m.Email) {
			continue
		}
		if since, ok := s.actives[m.TenantID+"/"+id]; ok && since >= t.began {
			return
		}
	}
	s.failf("removed: %s removed %s (%s), and no user with that address is active", t.name, s.named(m), m.Reason)
}

// usable checks that the library did not revoke the invitation of a waiting member.
func (s *sequence) usable() {
	if s.behavior.Behavior.IgnoreExistingRevokes {
		return // then Clerk revokes older invitations, also of other members
	}
	for _, m := range s.rows {
		if m.Status != clerkinvite.StatusPending || overdue(m, s.now()) || replaces(m) || s.vanished(m) {
			continue
		}
		inv := s.invitation(m.InvitationID)
		if inv == nil && !s.entrusted[m.InvitationID] || inv != nil && inv.Status == clerkinvite.InvitationRevoked && !s.withdrawn[inv.ID] {
			s.failf("dead link: %s waits for %s, which the library has revoked", s.named(m), m.InvitationID)
		}
	}
}

// compared checks the store's results against its contents.
func (s *sequence) compared(before []*clerkinvite.Member, changes []clerkinvite.Change, results []clerkinvite.Result) {
	if len(results) != len(changes) {
		s.failf("store: %d results of %d changes", len(results), len(changes))
		return
	}
	for i, c := range changes {
		old, now := byID(before, c.Old.ID), s.row(c.Old.ID)
		switch {
		case results[i].Err != nil:
			made := slices.ContainsFunc(changes, func(other clerkinvite.Change) bool {
				return other.Old.ID == c.Old.ID && results[slices.Index(changes, other)].Err == nil
			})
			if old != nil && !made && (now == nil || now.Version != old.Version) {
				s.failf("store: it changed %s and returned an error", s.named(old))
			}
		case old == nil && c.New == nil: // already erased
		case old == nil || old.Version != c.Old.Version:
			s.failf("store: it changed %s by an old version", s.named(c.Old))
		case c.New == nil:
			if now != nil {
				s.failf("store: %s was not erased", s.named(now))
			}
		default:
			want := *c.New
			want.Version = c.Old.Version + 1
			if now == nil || !same(&want, now) {
				s.failf("store: %s differs from what was written", s.named(c.New))
			}
		}
	}
}

// sent is a create under way.
type sent struct {
	clerkinvite.InvitationRequest
	member string
	send   int
	until  time.Time // end of the lease under which it was sent
}

// creating checks that a request for invitations may be sent.
func (t *task) creating(ctx context.Context, rs []clerkinvite.InvitationRequest) []sent {
	if ctx.Err() != nil || t.process.dead {
		return nil // not a create
	}
	if !slices.Contains(delivering, t.verb) {
		t.failf("create: %s must not create invitations", t.name)
	}
	all := make([]sent, len(rs))
	for i, r := range rs {
		id, send := markOf(r.PublicMetadata)
		all[i] = sent{InvitationRequest: r, member: id, send: send}
		// A verb for many people may find a user when it looks again for another tenant's row.
		user, asked := t.looked[r.Email]
		verified := user != ""
		if r.OrganizationID != "" && verified { // the user is asked, unless already a member
			verified, asked = t.members[user], t.askedMember(user) || t.verb == inviteMany || t.verb == deliver
		}
		if !asked || verified && (t.verb == invite || t.verb == resend) {
			t.failf("check before invite: %s creates for %s; looked up: %v, verified by a user: %v", t.name, r.Email, asked, verified)
		}
		at, claimed := t.claims[mark{id, send}]
		if !claimed {
			t.failf("claim: %s creates for %s without a claim", t.name, r.Email)
		}
		all[i].until = at.Add(lease)
		if row := t.row(id); row != nil && row.Send == send && triedOnce(row) && t.cutShort[mark{id, send}] {
			t.failf("tried again: %s creates for %s, whose only attempt has failed", t.name, r.Email)
		}
		if t.now().Sub(at) >= lease/2 {
			t.failf("lease: %s creates for %s when less than half of the lease is left", t.name, r.Email)
		}
	}
	return all
}

// created checks the result of a request for invitations.
func (t *task) created(all []sent) {
	t.clerkChanged()
	for _, r := range all {
		of, ended := 0, false
		made := ""
		for _, inv := range t.invitations(r.Email) {
			if inv.member != r.member || inv.send != r.send {
				continue
			}
			of++
			ended = ended || inv.Status != clerkinvite.InvitationPending
			if _, known := t.counted[inv.ID]; !known {
				t.counted[inv.ID], t.made[inv.ID], made = t.step, true, inv.ID
				t.sayf("    %s is for %s, send %d", inv.ID, inv.Email, inv.send)
			}
		}
		mark := mark{r.member, r.send}
		// Not promised: a create carried out after its lease. Clerk does not reject it if it had to
		// use ignore_existing, or if the next attempt's invitation has ended by then. The next attempt
		// does not adopt it if Clerk's list hides it. A rejected bulk request can also have created an
		// invitation that has ended since.
		if made != "" && (!r.until.After(t.now()) || ended && t.behavior.Behavior.BulkKeepsPartial) {
			t.late[mark] = true
		}
		if of > 1 && !t.late[mark] {
			t.failf("two invitations: %d of send %d of %s", of, r.send, r.Email)
		}
	}
	t.usable()
}

// mark is a member and a send.
type mark struct {
	member string
	send   int
}

// refusal notes that Clerk has refused the addresses of a request, or another part of
// it that stays the same.
func (t *task) refusal(rs []clerkinvite.InvitationRequest, err error) {
	var api *clerkinvite.APIError
	if !errors.As(err, &api) || api.StatusCode/100 != 4 || api.Code != "not_allowed_access" && api.Meta["param_name"] == nil {
		return
	}
	for _, r := range rs {
		t.refused[r.OrganizationID+"/"+r.Email] = true
	}
}

// revoked checks that a verb has revoked an invitation for a valid reason.
func (t *task) revoked(inv *invitation) {
	id := inv.ID
	row := t.row(inv.member)
	erased, gone := t.purged[inv.member]
	ref := erased.ref
	if row != nil {
		ref = row.Ref()
	}
	asked := (t.verb == revoke || t.verb == remove || t.verb == purge) && ref == t.ref
	switch {
	case t.resending(inv):
		t.withdrawn[id] = true
	case t.adopted[id] && !t.replaced(id) && !slices.Contains([]verb{revoke, remove, purge}, t.verb) && t.waitedFor(t.seen, id) && t.waitedFor(t.rows, id): // a member may adopt it after that
		t.failf("left over: %s revoked %s, for which a member waits", t.name, id)
	case t.adopted[id]:
		t.withdrawn[id] = true
	case inv.member == "" || row == nil && !gone:
		t.failf("foreign: %s revoked %s, which is another application's", t.name, id)
	case asked:
		t.withdrawn[id] = true
	case row == nil:
		if !t.made[id] && t.began > erased.done {
			t.failf("foreign: %s revoked %s of an unknown member", t.name, id)
		}
	case kept(row, inv):
		t.failf("left over: %s revoked %s, for which %s waits", t.name, id, t.named(row))
	case t.shared && inv.OrganizationID != "": // another tenant's attempt may be about to adopt it
		t.withdrawn[id] = true
	}
	t.usable()
}

// waitedFor reports whether one of the rows waits for the invitation.
func (s *sequence) waitedFor(rows []*clerkinvite.Member, id string) bool {
	return slices.ContainsFunc(rows, func(m *clerkinvite.Member) bool {
		return m.Status.Waits() && m.InvitationID == id
	})
}

// kept reports whether a row refers to an open invitation with its ID.
func kept(row *clerkinvite.Member, inv *invitation) bool {
	if inv.send > row.Send {
		return true
	}
	if replaces(row) && inv.send < row.Send {
		return false
	}
	waits := row.Status == clerkinvite.StatusReserved || row.Status == clerkinvite.StatusPending
	return waits && (row.InvitationID == inv.ID || row.Sent < row.Send && inv.send == row.Send)
}

// named returns the name of a member in the text of a problem.
func (s *sequence) named(m *clerkinvite.Member) string { return m.TenantID + "/" + m.Email }

// state formats a member only when it is printed.
type state struct{ m *clerkinvite.Member }

func (s state) String() string {
	m := s.m
	if m == nil {
		return "nobody"
	}
	text := m.TenantID + "/" + m.Email + " " + string(m.Status)
	if m.ClerkUserID != "" {
		text += " " + m.ClerkUserID
	} else if m.InvitationID != "" {
		text += " (" + m.InvitationID + ")"
	}
	text += " " + number(m.Sent) + "/" + number(m.Send) + " attempt " + number(m.Attempts)
	if m.ClaimedUntil != nil {
		text += " claimed"
	}
	if m.NextAttemptAt != nil {
		text += " due"
	}
	if m.Reason != "" {
		text += " because " + m.Reason
	}
	return text
}

// same reports whether two members are equal.
func same(a, b *clerkinvite.Member) bool {
	times := func(m *clerkinvite.Member) []*time.Time {
		return []*time.Time{&m.ReservedAt, m.InvitedAt, m.ExpiresAt, m.SettledAt, m.ClaimedUntil, m.NextAttemptAt, &m.UpdatedAt}
	}
	if !slices.EqualFunc(times(a), times(b), func(a, b *time.Time) bool {
		return a == b || a != nil && b != nil && a.Equal(*b)
	}) || !sameJSON(a.Data, b.Data) || !bytes.Equal(a.Params, b.Params) {
		return false
	}
	plain := func(m *clerkinvite.Member) [16]any {
		return [16]any{m.ID, m.TenantID, m.Email, m.Status, m.ClerkUserID, m.InvitationID, m.URL, m.Role, m.InvitedBy, m.ChangedBy, m.Send, m.Sent, m.Bulk, m.Attempts, m.Reason, m.Version}
	}
	return plain(a) == plain(b)
}

// sameJSON reports whether two values mean the same, because a store need not keep the encoding.
func sameJSON(a, b json.RawMessage) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
