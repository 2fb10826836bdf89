package protocol

import "slices"

// pc is the call that an actor is about to make.
type pc uint8

const (
	_ pc = iota // an idle actor

	pcFindDue
	pcClaim
	pcUsers
	pcMembers
	pcAdd
	pcListPending
	pcList
	pcListRevoked
	pcUsersAccepted
	pcOlderRevoke
	pcEndedList
	pcEndedListRevoked
	pcUsersOlder
	pcCreate
	pcUsersAgain
	pcSettle
	pcOvertaken
	pcRevokeMine
	pcSweepList
	pcSweepFind
	pcSweepRevoke

	pcInsert
	pcRenew
	pcReclaimGet
	pcReclaim
	pcResendGet
	pcResendClaim

	pcRevokeGet
	pcRevokeList
	pcRevokeShared
	pcRevokeOne
	pcRevokeUsers
	pcRevokeMembers
	pcRevokeWrite
	pcRevokeEnd

	pcResolveUser
	pcResolveFind
	pcResolveMembers
	pcResolveWrite

	pcCheck
	pcCheckIDs
	pcScan
	pcScanUsers
	pcScanIDs
	pcScanMembers
	pcApplicationOpen
	pcApplicationRevoked
	pcApplicationAccepted
	pcApplicationExpired
	pcOpenList
	pcOpenFind
	pcOpenRevoke
	pcRevokedList
	pcRevokedFind
	pcRevokedWrite
	pcAcceptedList
	pcAcceptedFind
	pcAcceptedUsers
	pcExpiredList
)

// calls are the names of the calls, as the replay sees them.
var calls = map[pc]string{
	pcFindDue: "find due", pcClaim: "update", pcUsers: "users by email", pcListPending: "list pending", pcList: "list", pcListRevoked: "list revoked",
	pcUsersAccepted: "users by email", pcCreate: "create", pcUsersAgain: "users by email", pcSettle: "update", pcOvertaken: "find id",
	pcRevokeMine: "revoke", pcSweepList: "list", pcSweepFind: "find id", pcSweepRevoke: "revoke",
	pcInsert: "insert", pcRenew: "update", pcReclaimGet: "find ref", pcReclaim: "update", pcResendGet: "find ref", pcResendClaim: "update",
	pcRevokeGet: "find ref", pcRevokeList: "list", pcRevokeOne: "revoke", pcRevokeUsers: "users by email", pcRevokeWrite: "update",
	pcRevokeEnd: "find ref", pcResolveUser: "get user", pcResolveFind: "find email", pcResolveWrite: "update",
	pcCheck: "scan", pcCheckIDs: "users by id", pcScan: "scan", pcScanUsers: "users by email", pcScanIDs: "users by id",
	pcOpenList: "list pending", pcOpenFind: "find id", pcOpenRevoke: "revoke", pcRevokedList: "list revoked", pcRevokedFind: "find id",
	pcRevokedWrite: "update", pcAcceptedList: "list accepted", pcAcceptedFind: "find id", pcAcceptedUsers: "users by email",
	pcExpiredList: "list expired",

	pcMembers: "memberships", pcAdd: "add member", pcOlderRevoke: "revoke", pcEndedList: "list", pcEndedListRevoked: "list revoked", pcUsersOlder: "users by email",
	pcRevokeShared: "find id", pcRevokeMembers: "memberships", pcResolveMembers: "memberships", pcScanMembers: "memberships",
	pcApplicationOpen: "list pending", pcApplicationRevoked: "list revoked", pcApplicationAccepted: "list accepted", pcApplicationExpired: "list expired",
}

func (p pc) revokes() bool { return calls[p] == "revoke" }

func (p pc) asksClerk() bool {
	switch calls[p] {
	case "update", "insert", "scan", "find due", "find id", "find ref", "find email":
		return false
	}
	return true
}

func (p pc) writes() bool { return calls[p] == "update" || calls[p] == "insert" }

// Call returns an actor's next call, "" for an idle actor, and
// the invitation that the call is about, if any.
func (s *State) Call(actor int) (call string, inv int8, ignore bool) {
	a := &s.actors[actor]
	if a.pc.revokes() {
		inv = a.revoking()
	}
	return calls[a.pc], inv, a.pc == pcCreate && a.others
}

// attempt begins with a row that the actor has claimed.
func (m *step) attempt(a *actor) {
	a.made, a.next, a.todo, a.seen = 0, undecided, 0, [maxInvitations]status{}
	a.others, a.again, a.stale, a.gives, a.older, a.accepted = false, false, false, false, false, false
	a.left, a.previous = a.row.send > 1, a.row.inv
	a.knows = m.joined(m.State)
	a.pc = pcUsers
	switch {
	case m.Once && a.row.attempts > 1 && m.has(TryOnce):
		m.decide(a, isAbandoned)
	case !m.has(FindFirst):
		m.createOrLook(a)
	}
}

// notJoined is the step after looking for users, if the person has not joined.
func (m *step) notJoined(a *actor) {
	switch {
	case a.again:
		a.pc = pcList
	case a.accepted:
		a.accepted = false
		m.tryCreate(a)
	default:
		m.createOrLook(a)
	}
}

// createOrLook is the step after the first look for users: look if something may have been
// sent before, otherwise create.
func (m *step) createOrLook(a *actor) {
	if m.Once && a.row.attempts > 1 {
		m.fail("an invitation is tried twice")
	}
	switch {
	case m.late(a):
		m.decide(a, isReleased)
	case a.row.attempts > 1 && m.has(LookFirst):
		a.pc = pcList
	case a.row.send > 1 && m.has(LookSecondSend): // it cannot have created anything
		a.pc = pcListPending
	default:
		m.tryCreate(a)
	}
}

// late reports whether too little of the lease is left to begin a create.
func (m *step) late(a *actor) bool { return a.lease != m.epoch && m.has(FreshCreate) }

func (m *step) tryCreate(a *actor) {
	if m.late(a) {
		m.decide(a, isReleased)
		return
	}
	a.stale = a.lease != m.epoch
	a.pc = pcCreate
}

// decide sets the decision, which is written next.
func (m *step) decide(a *actor, d decision) {
	a.next, a.at, a.pc = d, m.epoch, pcSettle
	a.seen, a.others, a.again, a.accepted, a.stale, a.knows, a.todo = [maxInvitations]status{}, false, false, false, false, false, 0
	if a.older {
		a.left, a.previous, a.older = a.left && d != isInvited, 0, false
	}
	if d == isLinked || d == isLinkedBy {
		a.left = a.left || a.row.attempts > 1
	}
	if a.gives = m.Once && (d == isPostponed || d == isUncertain || d == isReleased && a.verb != Deliver); a.gives || d == isAbandoned {
		a.left = d == isUncertain || d == isAbandoned // otherwise nothing was sent
	}
	if d != isInvited && d != isLinkedBy && d != isRevoked {
		a.made = 0
	}
}

// look concludes from the invitations of the address.
func (m *step) look(a *actor) {
	own, foreign, others := int8(0), int8(0), false
	for i, s := range a.seen {
		switch {
		case s == none:
		case m.Organization && m.invitations[i].send != a.row.send:
			if s == pending && m.invitations[i].send == 0 && i+1 != int(a.row.inv) && m.has(AdoptForeign) {
				foreign = int8(i + 1)
			}
		case m.invitations[i].send != a.row.send || m.invitations[i].send > 0 && !m.has(Adopt):
			others = others || s == pending
		case own == 0:
			own = int8(i + 1)
		default: // the same send twice
			a.left = true
			if rank(s) < rank(a.seen[own-1]) {
				own = int8(i + 1)
			}
		}
	}
	if own > 0 {
		s := a.seen[own-1]
		a.made = own
		switch s {
		case accepted:
			m.decide(a, isInvited)
			a.pc = pcUsersAccepted
		case pending:
			m.decide(a, isInvited)
		default:
			m.decide(a, isRevoked)
		}
		return
	}
	switch {
	case foreign > 0:
		a.made = foreign
		m.decide(a, isInvited)
	case a.again && !others:
		m.decide(a, isPostponed)
	case m.Organization && a.row.send > 1 && m.has(RevokeFirst):
		m.makeRoom(a)
	default:
		a.seen, a.others = [maxInvitations]status{}, others
		m.tryCreate(a)
	}
}

// makeRoom revokes the older invitations before an organization gets another. The row's may have been accepted.
func (m *step) makeRoom(a *actor) {
	for i, s := range a.seen {
		switch current := i+1 == int(a.row.inv); {
		case current && s == accepted && !m.has(SendAccepted):
			m.keepOlder(a)
			return
		case current && s == accepted:
			a.accepted = true
		case current && s == revoked:
			a.older = true
		case current, s == pending && m.invitations[i].send > 0:
			a.todo |= 1 << i
		}
	}
	a.seen = [maxInvitations]status{}
	m.nextOlder(a)
}

// keepOlder completes a resend with the older invitation, as it did without the rule SendAccepted.
func (m *step) keepOlder(a *actor) {
	a.made = a.row.inv
	m.decide(a, isInvited)
}

func (m *step) nextOlder(a *actor) {
	switch a.pc = pcOlderRevoke; {
	case a.todo > 0:
	case a.accepted:
		a.knows, a.pc = m.joined(m.State), pcUsersOlder
	default:
		m.tryCreate(a)
	}
}

// olderEnded continues after an older invitation has ended.
func (m *step) olderEnded(a *actor) {
	inv := a.revoking()
	if inv == a.row.inv {
		a.accepted = m.invitations[inv-1].status == accepted
		if a.accepted && !m.has(SendAccepted) {
			m.keepOlder(a)
			return
		}
		a.older = !a.accepted
	}
	a.todo &^= 1 << (inv - 1)
	m.nextOlder(a)
}

func rank(s status) int { return slices.Index([]status{accepted, pending, revoked}, s) }

// uncertain ends an attempt whose create got no response: the row stays unchanged.
func (m *step) uncertain(a *actor) {
	switch {
	case m.Once:
		m.decide(a, isUncertain)
	case !m.has(KeepLease):
		m.decide(a, isLetGo)
	default:
		m.delivered(a)
	}
}

// decided returns the row that the actor's decision makes of r.
func (m *step) decided(a *actor, r row) row {
	switch a.next {
	case isInvited:
		r = r.settled(pending)
		r.inv = a.made
	case isLinked:
		r = r.settled(active)
	case isLinkedBy:
		r = r.settled(active)
		r.inv = a.made
	case isRevoked:
		r = r.settled(revoked)
		r.inv = a.made
	case isAbandoned:
		r = r.withdrawn()
	case isReleased:
		r.attempts--
		r.held, r.next = 0, max(a.began, a.due)
	case isPostponed:
		r.held, r.next = 0, a.at+1
	default:
		r.held, r.next = 0, a.at
	}
	if a.gives {
		r = r.withdrawn()
	}
	return r
}

// goOn makes an actor's next call.
func (m *step) goOn(a *actor) {
	switch a.pc {
	case pcUsers, pcUsersOlder, pcUsersAgain:
		a.again = a.pc == pcUsersAgain
		switch {
		case !m.user:
			m.notJoined(a)
		case m.Organization && m.has(ProveMember):
			a.pc = pcMembers
		default:
			m.decide(a, isLinked)
		}
	case pcMembers:
		switch accepting := a.next == isInvited; {
		case m.member && accepting:
			m.decide(a, isLinkedBy)
		case m.member:
			m.decide(a, isLinked)
		case accepting:
			a.pc = pcSettle
		case m.AddExisting && m.late(a):
			m.decide(a, isReleased)
		case m.AddExisting:
			a.pc = pcAdd
		default:
			m.notJoined(a)
		}
	case pcAdd:
		m.member = true
		m.decide(a, isLinked)
	case pcListPending:
		a.seen = m.list(pending)
		m.look(a)
	case pcList:
		a.seen = m.list(none)
		if a.pc = pcListRevoked; !m.has(LookRevoked) {
			m.look(a)
		}
	case pcListRevoked:
		for i, inv := range m.invitations {
			if inv.status == revoked {
				a.seen[i] = revoked
			}
		}
		m.look(a)
	case pcUsersAccepted:
		switch a.pc = pcSettle; {
		case m.user && m.Organization:
			a.pc = pcMembers
		case m.user:
			m.decide(a, isLinkedBy)
		}
	case pcOlderRevoke:
		if m.invitations[a.revoking()-1].status != pending {
			a.pc = pcEndedList
			break
		}
		m.revokeAtClerk(a, a.revoking())
		m.olderEnded(a)
	case pcEndedList:
		a.pc = pcEndedListRevoked
	case pcEndedListRevoked:
		if a.verb == Revoke {
			m.revokeEnded(a)
		} else {
			m.olderEnded(a)
		}
	case pcCreate:
		if made := m.create(m.request(a)); made > 0 {
			a.made = made
			m.decide(a, isInvited)
		} else {
			a.knows = m.joined(m.State)
			if a.pc = pcUsersAgain; !m.has(FindAgain) {
				a.again, a.pc = true, pcList
			}
		}
	case pcSettle:
		was := a.row
		if !m.has(WriteByVersion) || !m.has(GiveUpOwn) && a.keepsWaiting() {
			was.version = m.row.version
		}
		if m.update(was, m.decided(a, a.row)) {
			a.moved, a.retries = a.next == isRevoked, a.next == isAbandoned
			m.written(a)
		} else {
			a.pc = pcOvertaken
		}
	case pcOvertaken:
		m.overtaken(a)
	case pcRevokeMine:
		m.revokeAtClerk(a, a.made)
		m.written(a)
	case pcSweepList:
		seen := m.list(none)
		m.candidates(a, seen)
	case pcSweepFind:
		if a.row = m.row; !m.has(ClerkThenRows) {
			a.pc = pcSweepList
			break
		}
		m.sweep(a)
	case pcSweepRevoke:
		m.revokeAtClerk(a, a.revoking())
		m.revokedOne(a)
	default:
		m.goOnVerb(a)
	}
}

// candidates keeps the open invitations of the list, and the row's previous invitation if the
// list does not show it.
func (m *step) candidates(a *actor, seen [maxInvitations]status) {
	if a.previous > 0 && seen[a.previous-1] == none {
		seen[a.previous-1] = pending
	} else if !m.Organization {
		a.previous = 0
	}
	ours := false
	for i, inv := range m.invitations {
		if seen[i] != pending {
			seen[i] = none
		}
		ours = ours || seen[i] == pending && (inv.send > 0 || m.Organization)
	}
	a.seen, a.pc = seen, pcSweepFind
	switch {
	case !ours:
		m.delivered(a)
	case !m.has(ClerkThenRows):
		m.sweep(a)
	}
}

// sweep finds left-over invitations.
func (m *step) sweep(a *actor) {
	a.todo = m.leftOver(a.row, a.seen, a.previous)
	a.seen = [maxInvitations]status{}
	if a.pc = pcSweepRevoke; a.todo == 0 {
		m.delivered(a)
	}
}

// revokedOne continues with the next left-over invitation.
func (m *step) revokedOne(a *actor) {
	if a.todo &^= 1 << (a.revoking() - 1); a.todo == 0 {
		m.delivered(a)
	}
}

// owns reports whether r still has the claim of the actor's attempt.
func (a *actor) owns(r row) bool { return r.held == a.row.held && r.attempts == a.row.attempts }

// overtaken decides again for a row that another actor has changed.
func (m *step) overtaken(a *actor) {
	r := m.row
	a.retries = r.status == failed
	switch {
	case a.keepsWaiting() && r.due() && !a.owns(r):
		m.written(a)
	case a.keepsWaiting() && !r.due(): // decided by another actor
		a.next, a.left = undecided, false
		m.written(a)
	case r.due() && r.send == a.row.send && m.has(SettleAgain):
		a.row, a.pc = r, pcSettle
	case a.next == isInvited && m.invitations[a.made-1].send == a.row.send && m.has(RevokeUnwanted) && (r.inv != a.made || !m.has(KeepNamed)):
		a.pc = pcRevokeMine
	default:
		m.written(a)
	}
}

// written is the step after a decision is written, or is no longer needed.
func (m *step) written(a *actor) {
	if a.left && !a.keepsWaiting() && m.has(SweepLater) {
		if a.made, a.pc = 0, pcSweepList; !m.has(ClerkThenRows) {
			a.pc = pcSweepFind
		}
		return
	}
	m.delivered(a)
}

// unanswered is the step after a call without a response, other than a create.
func (m *step) unanswered(a *actor) {
	switch a.pc {
	case pcMembers, pcUsersAccepted:
		if a.next == isInvited {
			a.pc = pcSettle
			break
		}
		m.decide(a, isPostponed)
	case pcUsers, pcUsersOlder, pcUsersAgain, pcListPending, pcList, pcListRevoked, pcOlderRevoke:
		m.decide(a, isPostponed)
	case pcEndedList, pcEndedListRevoked:
		if a.verb != Revoke {
			m.decide(a, isPostponed)
		} else {
			m.end(a)
		}
	case pcSettle:
		a.failed = true
		m.written(a)
	case pcOvertaken: // the caller gets no error
		if a.keepsWaiting() {
			a.next, a.left = undecided, false
		}
		m.written(a)
	case pcAdd:
		m.uncertain(a)
	case pcRevokeMine:
		m.written(a)
	case pcSweepList:
		m.candidates(a, [maxInvitations]status{})
	case pcSweepFind:
		m.delivered(a)
	case pcSweepRevoke:
		m.revokedOne(a)
	case pcOpenRevoke:
		m.openRevoked(a)
	case pcResolveFind, pcResolveWrite:
		if a.retries { // a failure for one user ends nothing
			m.resolved(a)
		} else {
			m.end(a)
		}
	default: // the verb ends with an error
		*a = actor{}
	}
}
