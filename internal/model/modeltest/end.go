package modeltest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// end finishes everything without more faults, and checks the final state.
func (s *sequence) end() {
	s.sayf("no more trouble")
	s.calm = true
	s.clerk.ClearFaults()
	s.clerk.SetLimits(clerkinvitetest.Limits{})
	for len(s.tasks)+len(s.flights) > 0 && s.problem == "" {
		s.step++
		switch k := s.rand.IntN(len(s.tasks) + len(s.flights)); {
		case k < len(s.tasks):
			s.tasks[k].orProbe().resume(fine)
		case s.chance(2): // the call is lost
			s.flights = slices.Delete(s.flights, k-len(s.tasks), k-len(s.tasks)+1)
		default:
			s.land(k - len(s.tasks))
		}
	}
	s.quiet = true
	s.delivered()
	if s.noneKnown() {
		s.refused()
		return
	}
	if s.organization {
		s.advance(2 * time.Hour) // Reconcile does not remove people who may have just become members
	}
	s.reconciled()
	if s.problem != "" || s.hidden {
		return
	}
	for _, m := range s.rows {
		s.final(m)
		s.cleared(m)
		s.remembered(m)
	}
	s.cleanUp()
	for _, email := range emails {
		for _, inv := range s.invitations(email) {
			s.stray(&inv)
		}
	}
}

// alone runs one verb completely, in its own process.
func (s *sequence) alone(v verb, run func(t *task, ctx context.Context)) {
	if s.problem != "" {
		return
	}
	s.step++
	s.settle()
	s.start(s.newProcess(0), v, run).finish()
}

// delivered lets time pass and delivers until nothing is due.
func (s *sequence) delivered() {
	waits := func(m *clerkinvite.Member) bool {
		return m.Sent < m.Send && (m.Status == clerkinvite.StatusReserved || m.Status == clerkinvite.StatusPending)
	}
	for range 12 {
		if s.problem != "" {
			return
		}
		s.sayf("2 hours pass")
		s.advance(2 * time.Hour)
		s.alone(deliver, func(t *task, ctx context.Context) {
			report, err := t.process.service.Deliver(ctx, nil)
			if err != nil {
				t.failf("end: Deliver returns %v without a fault", outcome{err})
			}
			t.sayf("%s = %+v", t.name, *report)
		})
		if !slices.ContainsFunc(s.rows, waits) {
			break
		}
	}
	if i := slices.IndexFunc(s.rows, waits); i >= 0 {
		s.failf("end: %v stays due forever", state{s.rows[i]})
	}
}

// reconciled reconciles: first a dry run, then a real run, then another one, perhaps in parts, which must change nothing.
func (s *sequence) reconciled() {
	lagged := false
	once := func(opts clerkinvite.ReconcileOptions) (sum clerkinvite.ReconcileReport) {
		v := reconcile
		if opts.DryRun {
			v = dryRun
		}
		for calls := 0; ; calls++ {
			s.alone(v, func(t *task, ctx context.Context) {
				report, err := t.process.service.Reconcile(ctx, &opts)
				if err != nil && s.behavior.Behavior.ListOmitsUser && strings.Contains(err.Error(), "seems to belong to another instance") {
					opts.Cursor, s.hidden = "", true
					return
				}
				if err != nil && s.behavior.Behavior.Lag && isNotPending(err) {
					lagged = true // two tenants have this invitation, and Clerk does not show yet that the call has revoked it
				} else if err != nil && (!s.dissolved || !isClerks(err)) {
					t.failf("end: Reconcile returns %v without a fault", outcome{err})
				}
				t.sayf("%s = %v, %v", t.name, report.LogValue(), outcome{err})
				sum.Members += report.Members
				sum.Activated += report.Activated
				sum.Removed += report.Removed
				sum.Expired += report.Expired
				sum.Revoked += report.Revoked
				sum.LeftOver += report.LeftOver
				sum.Unknown += report.Unknown
				sum.Newer += report.Newer
				sum.Missing += report.Missing
				sum.Moved += report.Moved
				sum.OutOfDate = append(sum.OutOfDate, report.OutOfDate...)
				sum.AcceptedElsewhere = append(sum.AcceptedElsewhere, report.AcceptedElsewhere...)
				opts.Cursor = report.Cursor
			})
			if calls > 100 {
				s.failf("end: Reconcile does not end")
			}
			if opts.Cursor == "" || s.problem != "" {
				return sum
			}
		}
	}
	if slices.ContainsFunc(s.rows, func(m *clerkinvite.Member) bool { return s.entrusted[m.InvitationID] && m.InvitedAt == nil }) {
		once(clerkinvite.ReconcileOptions{}) // reads the times of adopted members' invitations
	}
	would := once(clerkinvite.ReconcileOptions{DryRun: true})
	did := once(clerkinvite.ReconcileOptions{})
	if lagged { // another call must complete it
		lagged = false
		would = once(clerkinvite.ReconcileOptions{DryRun: true})
		did = once(clerkinvite.ReconcileOptions{})
	}
	if lagged {
		s.failf("end: Reconcile fails again, although Clerk shows what the call before has revoked")
	}
	if s.problem != "" {
		return
	}
	// Which of a person's addresses becomes active can depend on the run itself.
	numbers := func(r clerkinvite.ReconcileReport) [8]int {
		return [8]int{r.Activated + r.Removed, r.Expired, r.Revoked, r.LeftOver, r.Unknown, len(r.AcceptedElsewhere), r.Moved, len(r.OutOfDate)}
	}
	if did.Moved > 0 { // an erased second address has no invitation left to revoke
		would.LeftOver, would.Unknown = did.LeftOver, did.Unknown
	}
	if numbers(would) != numbers(did) {
		s.failf("end: the dry run reported %+v, and the real run %+v", numbers(would), numbers(did))
	}
	for _, m := range did.AcceptedElsewhere {
		if inv := s.invitation(m.InvitationID); inv == nil || inv.Status != clerkinvite.InvitationAccepted || s.joinable(m) != nil {
			s.failf("end: %s is elsewhere", s.named(m))
		}
	}
	for range emails { // an address can become free when another member changes its address or leaves
		if did.Moved+len(did.OutOfDate) == 0 || s.problem != "" {
			break
		}
		did = once(clerkinvite.ReconcileOptions{})
	}
	lagged = false
	again := once(clerkinvite.ReconcileOptions{Limit: s.rand.IntN(4)})
	if lagged {
		s.failf("end: another Reconcile fails, although Clerk shows everything")
	}
	if did.Missing > 0 { // which of these users Reconcile asks for depends on the page, and one may exist although lists hide it
		again.Removed = 0
	}
	if n := numbers(again); s.problem == "" && (n[0]+n[1]+n[2]+n[3]+again.Moved > 0 || n[5] != len(did.AcceptedElsewhere)) {
		s.failf("end: another Reconcile would change: %+v", n)
	}
}

// isNotPending reports whether Clerk says that an organization's invitation has ended.
func isNotPending(err error) bool {
	var api *clerkinvite.APIError
	return errors.As(err, &api) && api.Code == "organization_invitation_not_pending"
}

// noneKnown reports whether members are active, but Clerk knows none of their users, no invitation with a
// member's marker, and no invitation without a marker that a member waits for.
func (s *sequence) noneKnown() bool {
	return !slices.ContainsFunc(s.rows, s.shown) &&
		slices.ContainsFunc(s.rows, func(m *clerkinvite.Member) bool { return m.Status == clerkinvite.StatusActive })
}

// shown reports whether Clerk shows the member's user, or the invitation that the member refers to.
func (s *sequence) shown(m *clerkinvite.Member) bool {
	if inv := s.invitation(m.InvitationID); inv != nil && (inv.member == m.ID || s.adopted[inv.ID] && m.Status.Waits()) {
		return true
	}
	return m.Status == clerkinvite.StatusActive && !s.users[m.ClerkUserID].deleted
}

// keyProven reports whether Clerk shows one of the rows that were settled when m was, or earlier. Otherwise the key may be another
// instance's, as far as m is concerned.
func (s *sequence) keyProven(rows []*clerkinvite.Member, m *clerkinvite.Member) bool {
	return slices.ContainsFunc(rows, func(other *clerkinvite.Member) bool {
		return s.shown(other) && !other.SettledAt.After(*m.SettledAt)
	})
}

// refused checks that Reconcile then assumes another instance's key and changes nothing.
func (s *sequence) refused() {
	before := s.rows
	s.alone(reconcile, func(t *task, ctx context.Context) {
		if _, err := t.process.service.Reconcile(ctx, nil); !isClerks(err) {
			t.failf("end: Clerk has no users, and Reconcile returns %v", outcome{err})
		}
	})
	if !slices.EqualFunc(before, s.rows, same) {
		s.failf("end: Clerk has no users, and Reconcile has changed members")
	}
}

// welcome returns the user who has verified the address and is not barred, or nil.
func (s *sequence) welcome(email string) *person {
	if p := s.holder(email); p != nil && !barred(p.User) {
		return p
	}
	return nil
}

// final checks the final state of a member.
func (s *sequence) final(m *clerkinvite.Member) {
	if s.vanished(m) && (m.Status == clerkinvite.StatusPending || m.Status == clerkinvite.StatusActive) {
		return // the host cleans up
	}
	switch m.Status {
	case clerkinvite.StatusPending:
		inv := s.invitation(m.InvitationID)
		switch {
		case inv == nil && !s.entrusted[m.InvitationID]:
			s.failf("end: %v waits for nothing", state{m})
		case s.joinable(m) != nil && (m.ExpiresAt == nil || m.ExpiresAt.After(s.now())):
			s.failf("end: %v has joined, but is not active", state{m})
		case inv == nil: // no person has joined, and Clerk's lists never show its times
		case inv.Status == clerkinvite.InvitationAccepted: // reported as elsewhere
			if s.joinable(m) != nil {
				s.failf("end: %v has accepted, but is not active", state{m})
			}
		case inv.Status != clerkinvite.InvitationPending:
			s.failf("unnoticed: %v waits for %s, which is %s", state{m}, inv.ID, inv.Status)
		}
	case clerkinvite.StatusActive:
		p := s.users[m.ClerkUserID]
		if p.deleted {
			if s.keyProven(s.rows, m) && !s.behavior.Behavior.ListOmitsUser { // the user omitted may be the only one who is as old
				s.failf("end: %v is active as a user who is deleted", state{m})
			}
			return
		}
		s.mustLeave(m)
		if email := primary(p.User); email != "" && left(p.User, m.Email) {
			if other := byRef(s.rows, clerkinvite.Ref{TenantID: m.TenantID, Email: email}); other == nil || other.Reason == clerkinvite.ReasonSecondAddress {
				s.failf("end: %v has not got the address %s", state{m}, email)
			}
		}
	case clerkinvite.StatusReserved:
		s.failf("end: %v stays reserved", state{m})
	default:
		if m.Sent != m.Send {
			s.failf("end: %v has not settled its send", state{m})
		}
	}
}

// cleanUp removes or erases the members of an organization that was deleted. It must succeed if Clerk shows another member's
// user or invitation.
func (s *sequence) cleanUp() {
	for _, m := range s.rows {
		if !s.vanished(m) || !m.Status.Waits() && m.Status != clerkinvite.StatusActive {
			continue
		}
		known := slices.ContainsFunc(s.rows, s.shown)
		v := pick(s, remove, purge)
		s.alone(v, func(t *task, ctx context.Context) {
			t.ref, t.given = m.Ref(), m.Ref()
			var err error
			if v == purge {
				err = t.process.service.Purge(ctx, t.ref)
			} else {
				_, err = t.process.service.Remove(ctx, t.ref)
			}
			t.sayf("%s %s: %v", t.name, t.named(m), outcome{err})
			if err != nil && (known || !isClerks(err)) {
				t.failf("end: %s cannot clean up %v: %v", t.name, state{m}, outcome{err})
			}
		})
	}
}

// stray checks that an invitation is open only if a member waits for it, and that
// other applications' invitations are unchanged.
func (s *sequence) stray(inv *invitation) {
	made, ours := s.counted[inv.ID]
	if !ours {
		if inv.Status == clerkinvite.InvitationRevoked && !s.withdrawn[inv.ID] && !s.behavior.Behavior.IgnoreExistingRevokes {
			s.failf("end: another application's %s is revoked", inv.ID)
		}
		return
	}
	if inv.Status != clerkinvite.InvitationPending {
		return
	}
	if erased, gone := s.purged[inv.member]; gone && (made >= erased.since || s.outOfReach(inv, erased)) {
		return // its create was under way when the member was erased, or Purge could not find it
	}
	if m := s.row(inv.member); (m == nil || m.InvitationID != inv.ID || m.Status != clerkinvite.StatusPending) && !s.adoptedInto(inv) {
		s.failf("end: %s is open, and no member waits for it", inv.ID)
	}
}

// outOfReach reports whether Purge could not find an invitation: the erased row did not refer to it, and the row's address had
// changed since the send.
func (s *sequence) outOfReach(inv *invitation, erased purged) bool {
	var last *clerkinvite.Member
	sent := false
	for _, row := range s.committed {
		if row.ID != inv.member {
			continue
		}
		if last == nil || row.Version > last.Version {
			last = row
		}
		sent = sent || row.Send == inv.send && row.Email == inv.Email
	}
	return sent && last.InvitationID != inv.ID && !slices.Contains(erased.listed, inv.Email)
}
