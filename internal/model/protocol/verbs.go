package protocol

// begin begins a verb, up to its first call.
func (m *step) begin(a *actor, v Verb) {
	*a = actor{verb: v, began: m.epoch, lease: m.epoch}
	switch v {
	case Deliver:
		a.pc = pcFindDue
	case Invite:
		a.pc = pcInsert
	case Resend:
		a.pc = pcResendGet
	case Revoke:
		a.pc = pcRevokeGet
		m.withdrawn = true
	case Reconcile:
		a.pc = pcCheck
	default:
		a.pc = pcResolveUser
	}
}

// end ends a verb.
func (m *step) end(a *actor) { *a = actor{} }

// delivered is the step of a verb after its attempt has ended.
func (m *step) delivered(a *actor) {
	switch {
	case a.verb == Deliver && a.next != isReleased && !a.failed:
		*a = actor{verb: Deliver, pc: pcFindDue, began: a.began}
	case a.verb == Invite && a.round < 2 && (a.next == isRevoked && a.moved || a.retries):
		// An earlier attempt's invitation has ended; the caller wants a working one.
		*a = actor{verb: Invite, pc: pcInsert, began: m.epoch, lease: m.epoch, round: a.round + 1}
	default:
		m.end(a)
	}
}

// maxEmpty is how often in a row a pass may find nothing that it can claim.
const maxEmpty = 5

// goOnVerb makes the calls that are not part of an attempt.
func (m *step) goOnVerb(a *actor) {
	switch a.pc {
	case pcFindDue:
		if !m.row.due() || m.row.next > a.began && m.has(HonourLease) {
			m.end(a)
			return
		}
		a.row, a.lease, a.pc = m.row, m.epoch, pcClaim
	case pcClaim:
		was := a.row
		if !m.has(ClaimByVersion) {
			was.version = m.row.version
		}
		if !m.update(was, a.row.claimed(a.lease)) {
			if a.round++; a.round == maxEmpty {
				m.end(a)
				return
			}
			*a = actor{verb: Deliver, pc: pcFindDue, began: a.began, round: a.round}
			return
		}
		a.row, a.round = m.row, 0
		m.attempt(a)
	case pcInsert:
		m.insert(a)
	case pcRenew:
		was := a.row
		if !m.update(was, m.renewed(a)) {
			a.pc = pcInsert
			return
		}
		a.claims(was)
		m.reservedBy(a)
	case pcReclaimGet:
		switch r := m.row; {
		case a.owns(r):
			a.pc, a.row, a.began = pcReclaim, r, m.epoch
		case r.due(), r.status == failed:
			m.restart(a)
		default:
			m.end(a)
		}
	case pcReclaim:
		r := a.row
		r.attempts--
		a.lease = a.began
		if !m.update(a.row, r.claimed(a.lease)) {
			a.pc = pcReclaimGet
			return
		}
		a.row = m.row
		m.attempt(a)
	case pcResendGet:
		r := m.row
		a.lease, a.began = m.epoch, m.epoch
		if r.status != pending || r.held > m.epoch {
			m.end(a)
			return
		}
		a.row, a.pc = r, pcResendClaim
	case pcResendClaim:
		next := a.row
		if !next.due() || m.Once {
			next.send++
			next.attempts = 0
		}
		if !m.update(a.row, next.claimed(a.lease)) {
			a.pc = pcResendGet
			return
		}
		a.claims(a.row)
		a.row = m.row
		m.attempt(a)
	case pcRevokeGet, pcRevokeList, pcRevokeShared, pcRevokeOne, pcRevokeUsers, pcRevokeMembers, pcRevokeWrite, pcRevokeEnd:
		m.revoke(a)
	case pcResolveUser, pcResolveFind, pcResolveMembers, pcResolveWrite:
		m.resolve(a)
	default:
		m.reconcile(a)
	}
}

// insert is an Invite's first statement.
func (m *step) insert(a *actor) {
	if m.row.status == none {
		m.row = row{status: reserved, send: 1, version: 1}.claimed(a.lease)
		m.reservedBy(a)
		return
	}
	a.row, a.pc = m.row, pcRenew
	switch {
	case m.row.held > m.epoch, m.row.status == pending, m.row.status == active:
		m.end(a) // a duplicate
	}
}

// claims notes when the row was due before the claim.
func (a *actor) claims(before row) {
	if before.due() && before.next > a.began {
		a.due = before.next
	}
}

// renewed returns the row prepared for a new invitation, and claimed.
func (m *step) renewed(a *actor) row {
	r := a.row
	if r.status == revoked || r.status == failed {
		r.status, r.inv, r.attempts = reserved, 0, 0
		r.send++
	}
	return r.claimed(a.lease)
}

// reservedBy is the step after an Invite has written its row.
func (m *step) reservedBy(a *actor) {
	a.row = m.row
	if a.lease != m.epoch { // the insert had to wait
		a.pc = pcReclaimGet
		return
	}
	m.attempt(a)
}

// restart makes an Invite begin again.
func (m *step) restart(a *actor) {
	if a.round == 2 {
		m.end(a)
		return
	}
	*a = actor{verb: Invite, pc: pcInsert, began: m.epoch, lease: m.epoch, round: a.round + 1}
}

// revoke is Revoke, first at Clerk, then in the store.
func (m *step) revoke(a *actor) {
	switch a.pc {
	case pcRevokeGet:
		r := m.row
		if r.status != reserved && r.status != pending {
			m.end(a)
			return
		}
		a.row, a.todo, a.second, a.looked, a.knows, a.open = r, 0, false, false, false, 0
		a.left = r.status != active && (r.send > 1 || r.due() && r.attempts > 0) && m.has(WithdrawLook)
		for i, inv := range m.invitations {
			if inv.status == pending && inv.send > 0 {
				a.open |= 1 << i
			}
			a.knows = a.knows || m.user && inv.status == accepted && inv.send > 0
		}
		if r.status == pending {
			a.todo = 1 << (r.inv - 1)
		}
		m.revokeNext(a)
	case pcRevokeList:
		seen := m.list(none)
		for i, s := range seen {
			switch {
			case m.invitations[i].send == 0, a.row.status == pending && i+1 == int(a.row.inv):
			case s == accepted:
				m.revokeFound(a, i)
			case s == pending:
				a.todo |= 1 << i
			}
		}
		a.left = false
		m.revokeNext(a)
	case pcRevokeShared:
		a.pc = pcRevokeOne
	case pcRevokeOne:
		if m.Organization && m.invitations[a.revoking()-1].status != pending {
			a.pc = pcEndedList
			break
		}
		m.revokeAtClerk(a, a.revoking())
		m.revokeEnded(a)
	case pcRevokeUsers, pcRevokeMembers:
		switch {
		case m.user && m.Organization && a.pc == pcRevokeUsers:
			a.pc = pcRevokeMembers
		case m.joined(m.State):
			a.pc = pcResolveFind
		case a.second:
			a.pc = pcRevokeEnd
			m.end(a)
		default: // an earlier one, and no user has verified the address
			a.pc = pcRevokeWrite
		}
	case pcRevokeWrite:
		if !m.update(a.row, a.row.settled(revoked)) {
			a.pc = pcRevokeGet
			return
		}
		for i, inv := range m.invitations {
			if a.knows {
				m.fail("withdrawn, but the person had joined by its link")
			}
			if inv.status == pending && a.open&(1<<i) != 0 && m.shown&(LateIgnoring|LateWithdrawn) == 0 {
				m.fail("withdrawn, but its link works")
			}
		}
		m.end(a)
	default:
		m.end(a)
	}
}

// revokeEnded continues after an invitation was revoked, or was accepted before.
func (m *step) revokeEnded(a *actor) {
	inv := a.revoking()
	if m.invitations[inv-1].status == accepted {
		m.revokeFound(a, int(inv-1))
	}
	a.todo &^= 1 << (inv - 1)
	m.revokeNext(a)
}

// revokeFound notes that an invitation was accepted.
func (m *step) revokeFound(a *actor, i int) {
	if a.row.status == pending && i+1 == int(a.row.inv) || m.invitations[i].send == a.row.send {
		a.second = true
	} else {
		a.looked = true
	}
}

// revokeNext continues with the next invitation, with the list, or with the row.
func (m *step) revokeNext(a *actor) {
	switch {
	case a.todo != 0:
		a.pc = pcRevokeOne
		if m.Organization && (a.row.status != pending || a.revoking() != a.row.inv) {
			a.pc = pcRevokeShared // members of several tenants may wait for it
		}
	case a.left:
		a.pc = pcRevokeList
	case a.second || a.looked:
		a.pc = pcRevokeUsers
	default:
		a.pc = pcRevokeWrite
	}
}

// resolve makes the row active if the person has signed up.
func (m *step) resolve(a *actor) {
	switch a.pc {
	case pcResolveUser:
		a.pc = pcResolveFind
	case pcResolveFind:
		a.row, a.pc = m.row, pcResolveWrite
		switch {
		case m.row.status != reserved && m.row.status != pending:
			m.resolved(a)
		case m.Organization && !a.proved && m.has(ProveMember):
			a.pc = pcResolveMembers
		}
	case pcResolveMembers:
		if a.proved, a.pc = m.member, pcResolveWrite; !m.member {
			m.resolved(a)
		}
	default:
		if !m.update(a.row, a.row.settled(active)) {
			a.pc, a.retries = pcResolveFind, a.verb == Reconcile
			return
		}
		a.moved = true
		m.resolved(a)
	}
}

// resolved is the step after a row is resolved.
func (m *step) resolved(a *actor) {
	a.proved, a.retries = false, false
	switch {
	case a.verb == Revoke:
		a.pc = pcRevokeEnd
	case a.verb == Resolve:
		m.end(a)
	case a.second:
		a.pc = pcExpiredList
	default:
		m.scanned(a)
	}
}

// reconcile is Reconcile.
func (m *step) reconcile(a *actor) {
	switch a.pc {
	case pcCheck:
		if a.pc = pcScan; m.row.status == active {
			a.pc = pcCheckIDs
		}
	case pcCheckIDs:
		a.looked, a.pc = true, pcScan
	case pcScan:
		a.row = m.row
		switch {
		case m.row.status == pending:
			a.pc = pcScanUsers
		case m.row.status == active && !a.looked:
			a.pc = pcScanIDs
		default:
			m.scannedIDs(a)
		}
	case pcScanUsers:
		if a.pc = pcResolveFind; !m.user {
			m.scanned(a)
		}
	case pcScanIDs:
		m.scannedIDs(a)
	case pcScanMembers:
		a.pc = pcApplicationOpen
	case pcApplicationOpen: // the lists of invitations into the application are empty
		if a.pc = pcApplicationRevoked; !a.waits {
			a.pc = pcOpenList
		}
	case pcApplicationRevoked, pcApplicationAccepted, pcApplicationExpired:
		a.pc++
	case pcOpenList:
		if a.seen = m.list(pending); a.seen == [maxInvitations]status{} {
			m.opened(a)
			return
		}
		if a.pc = pcOpenFind; !m.has(ClerkThenRows) { // by the row that was read before
			m.open(a)
		}
	case pcOpenFind:
		a.row = m.row
		m.open(a)
	case pcOpenRevoke:
		m.revokeAtClerk(a, a.revoking())
		m.openRevoked(a)
	case pcRevokedList:
		if a.seen = m.list(revoked); a.seen == [maxInvitations]status{} {
			a.seen, a.pc = [maxInvitations]status{}, pcAcceptedList
			return
		}
		a.pc = pcRevokedFind
	case pcRevokedFind:
		a.pc = pcAcceptedList
		if r := m.row; m.names(a) && m.has(ReconcileEnded) {
			a.row, a.pc = r, pcRevokedWrite
		}
		a.seen = [maxInvitations]status{}
	case pcRevokedWrite:
		a.moved = m.update(a.row, a.row.settled(revoked)) || a.moved
		a.pc = pcAcceptedList
	case pcAcceptedList:
		if a.seen = m.list(accepted); a.seen == [maxInvitations]status{} {
			a.seen, a.pc = [maxInvitations]status{}, pcExpiredList
			return
		}
		a.pc = pcAcceptedFind
	case pcAcceptedFind:
		if a.pc = pcExpiredList; m.names(a) {
			a.second, a.pc = true, pcAcceptedUsers
		}
		a.seen = [maxInvitations]status{}
	case pcAcceptedUsers:
		if a.pc = pcExpiredList; m.user {
			a.pc = pcResolveFind
		}
	default:
		m.end(a)
	}
}

// names reports whether the row refers to one of the listed invitations.
func (m *step) names(a *actor) bool {
	r := m.row
	return r.status == pending && a.seen[r.inv-1] != none && (!r.due() || !m.has(ResendsWait)) && !a.moved
}

// scanned is the step after a pending row's user was looked up.
func (m *step) scanned(a *actor) {
	if a.waits, a.pc = !a.moved, pcOpenList; m.Organization {
		a.pc = pcApplicationOpen
	}
}

// scannedIDs is the step after an active row's user was looked up. That it has left the organization ends no
// membership, because Clerk shows no other member.
func (m *step) scannedIDs(a *actor) {
	switch a.pc = pcOpenList; {
	case m.Organization && a.row.status == active:
		a.pc = pcScanMembers
	case m.Organization:
		a.pc = pcApplicationOpen
	}
}

// open finds left-over invitations.
func (m *step) open(a *actor) {
	a.todo = 0
	if m.has(ReconcileLeft) {
		a.todo = m.leftOver(a.row, a.seen, 0)
	}
	a.seen = [maxInvitations]status{}
	if a.pc = pcOpenRevoke; a.todo == 0 {
		m.opened(a)
	}
}

// openRevoked continues with the next left-over invitation.
func (m *step) openRevoked(a *actor) {
	if a.todo &= a.todo - 1; a.todo == 0 {
		m.opened(a)
	}
}

// opened is the step after the open invitations.
func (m *step) opened(a *actor) {
	a.seen = [maxInvitations]status{}
	if a.pc = pcRevokedList; !a.waits {
		m.end(a)
	}
}
