package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// settle writes the verdicts that are not written yet, and revokes the invitations that they leave behind.
func (s *Service) settle(ctx context.Context, l lease, attempts ...*attempt) {
	open := slices.DeleteFunc(undelivered(attempts), func(a *attempt) bool { return a.verdict.kind == undecided })
	if len(open) == 0 {
		return
	}
	s.write(ctx, l, open)
	s.updateDuplicates(ctx, l, open)
	for _, a := range open {
		if !a.verdict.leftOver || a.delivery.Member == nil {
			continue
		}
		ctx, cancel := l.settling(ctx)
		s.revokeLeftOvers(ctx, a)
		hangs := ctx.Err() != nil
		cancel()
		if hangs {
			return // Clerk does not respond; Reconcile revokes the others
		}
	}
}

// updateDuplicates handles verdicts whose linked user is already a member under another address. If the user
// has given up that address, updateDuplicates changes the member's address. The caller's error then has the
// member with its new address.
func (s *Service) updateDuplicates(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	for _, a := range attempts {
		var dup *DuplicateEmailError
		u := a.verdict.user
		if u == nil || !errors.As(a.delivery.Err, &dup) || dup.Member == nil || !u.gaveUp(dup.Member) {
			continue
		}
		now, err := s.updateAddress(ctx, u, dup.Member, true)
		if err != nil {
			s.log.WarnContext(ctx, "not all members of a user resolved", "member", *dup.Member, "cause", logError(err))
		} else if now != nil {
			dup.Member = now
		}
	}
}

// maxWrites is how often one verdict is written if other processes keep changing its row.
const maxWrites = 10

// write writes the verdicts. Those that must first be finished are written after the others, so that a request that
// hangs does not keep the others from being written in time.
func (s *Service) write(ctx context.Context, l lease, attempts []*attempt) {
	unfinished := filter(attempts, (*attempt).mustFinish)
	s.writeAll(ctx, l, filter(attempts, func(a *attempt) bool { return !a.mustFinish() }))
	s.finish(ctx, l, unfinished)
	s.writeAll(ctx, l, unfinished)
}

// mustFinish reports whether the verdict depends on more than Clerk's responses so far.
func (a *attempt) mustFinish() bool {
	return a.mustUndoAdding() || a.mayHaveRevoked() || a.verdict.choosesAmongAddresses()
}

// finish makes the requests to Clerk and the changes of other rows that must precede the verdict. They may change the
// verdict, or decide without it.
func (s *Service) finish(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	for _, a := range attempts {
		s.undoAdding(ctx, a)
		s.checkOlder(ctx, a)
		if !a.verdict.choosesAmongAddresses() {
			continue
		}
		var err error
		if a.delivery, err = s.resolveFirst(ctx, a); err != nil {
			a.delivery = s.unwritten(ctx, a, err, false)
		}
	}
}

// writeAll writes verdicts in one statement. If another process has changed a row in the meantime, writeAll writes
// its verdict again.
func (s *Service) writeAll(ctx context.Context, l lease, attempts []*attempt) {
	for _, a := range undelivered(attempts) {
		if a.verdict.kind == isUncertain && !a.verdict.withdraw {
			// The claim stays until the lease ends, so that a late request arrives before the next attempt.
			a.delivery = a.verdict.report(a.row)
		}
	}
	open := undelivered(attempts)
	for n := 0; n < maxWrites && len(open) > 0; n++ {
		s.writeOnce(ctx, l, open)
		open = undelivered(open)
	}
	for _, a := range open {
		a.delivery = s.unwritten(ctx, a, ErrConflict, false)
	}
}

func undelivered(attempts []*attempt) []*attempt {
	return filter(attempts, func(a *attempt) bool { return a.delivery == nil })
}

// writeOnce writes the verdicts in one statement. Attempts without a delivery have to be written
// again.
func (s *Service) writeOnce(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	s.refreshClock(ctx)
	changes := make([]Change, len(attempts))
	for i, a := range attempts {
		changes[i] = Change{a.row, a.apply(s.now())}
	}
	results, err := s.apply(ctx, s.store, changes)
	for i, a := range attempts {
		if err != nil {
			a.delivery = s.unwritten(ctx, a, err, true)
			continue
		}
		var rowErr error
		if a.delivery, rowErr = s.written(ctx, a, changes[i].New.ClerkUserID, results[i]); rowErr != nil {
			a.delivery = s.unwritten(ctx, a, rowErr, false)
		}
	}
}

// written returns the delivery of an attempt after its verdict was written. It returns nil if the
// verdict, or another that it has set, must be written again.
func (s *Service) written(ctx context.Context, a *attempt, newUserID string, r Result) (*delivery, error) {
	switch {
	case r.Err == nil:
		return a.verdict.report(r.Member), nil
	case errors.Is(r.Err, ErrUserTaken):
		return nil, s.decideSecondAddress(ctx, a, newUserID)
	case errors.Is(r.Err, ErrConflict):
		return s.overtaken(ctx, a)
	}
	return nil, r.Err
}

// choosesAmongAddresses reports whether v links a user with several verified addresses, not because the
// person accepted the row's invitation. Rows of the other addresses may wait for the user too.
func (v *verdict) choosesAmongAddresses() bool {
	return v.user != nil && v.invitation == nil && len(v.user.verifiedEmails()) > 1
}

// resolveFirst applies the rules of Resolve to the linked user, because they choose the row that becomes active.
// It returns nil if the attempt's row still waits. Then a.row is up to date, and the verdict must be written.
func (s *Service) resolveFirst(ctx context.Context, a *attempt) (*delivery, error) {
	u := a.verdict.user
	p := proof{}
	if organization := a.organization(); organization != "" {
		p.members = map[Membership]bool{{Organization: organization, UserID: u.ID}: true}
	}
	if _, err := s.resolveUser(ctx, u, p); err != nil {
		// The error may concern another tenant's row. If this row still waits, the verdict is written.
		s.log.WarnContext(ctx, "not all members of a user resolved", "member", *a.row, "cause", logError(err))
	}
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, UserIDs: []string{u.ID}})
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(rows, func(m *Member) bool { return m.ID == a.row.ID })
	if own < 0 {
		_ = s.removeAdded(ctx, a)
		return &delivery{Result: Result{Err: errPurged}}, nil
	}
	row, elsewhere := rows[own], rows[own].organization() != a.organization()
	if row.Due() && !elsewhere { // in any send, because the user has verified the address
		a.row = row
		return nil, nil
	}
	// Resolve or another caller has decided. If a member is active by the membership, removeAdded keeps it.
	if !row.Status.Waits() || elsewhere {
		_ = s.removeAdded(ctx, a)
	}
	d := &delivery{Result: Result{Member: row}}
	active := slices.IndexFunc(rows, func(m *Member) bool { return m.TenantID == row.TenantID && m.Status == StatusActive })
	if row.Reason == ReasonSecondAddress && active >= 0 {
		d.Err = &DuplicateEmailError{a.row.Ref(), rows[active]}
	}
	return d, nil
}

// decideSecondAddress decides again for a row whose user is in the tenant under another address.
func (s *Service) decideSecondAddress(ctx context.Context, a *attempt, userID string) error {
	others, err := s.store.Find(ctx, Query{UserIDs: []string{userID}})
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.TenantID == a.row.TenantID {
			a.decide(verdict{kind: isSecondAddress, user: a.verdict.user, other: other, leftOver: a.verdict.leftOver})
			_ = s.removeAdded(ctx, a)
			return nil
		}
	}
	return nil // the other member has left in the meantime, so the same verdict must be written again
}

// errPurged is returned if the member was erased during the attempt.
var errPurged = fmt.Errorf("clerkinvite: the member was purged: %w", ErrConflict)

// overtaken decides how to continue after another process has changed the row. If the row still waits
// for the same send, it replaces a.row and returns nil, and the verdict must be written again. Otherwise
// the row stays unchanged, and an invitation that no row refers to is revoked. A row of another tenant may have
// adopted it.
func (s *Service) overtaken(ctx context.Context, a *attempt) (*delivery, error) {
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, Emails: []string{a.row.Email}})
	if err != nil {
		return nil, err
	}
	own := slices.IndexFunc(rows, func(row *Member) bool { return row.ID == a.row.ID })
	d := &delivery{Result: Result{Err: errPurged}}
	if own >= 0 {
		d.Result = Result{Member: rows[own]}
	}
	row := d.Member
	if row != nil && row.Due() {
		switch {
		case a.verdict.claimOnly() && !sameTime(row.ClaimedUntil, a.row.ClaimedUntil):
			return a.verdict.report(row), nil // another attempt has claimed the row, so there is nothing to write
		case row.Send == a.row.Send:
			a.row = row
			return nil, nil
		}
	}
	// The send has ended in another way. Perhaps the member was then invited again, or into another organization.
	switch {
	case a.verdict.kind == isInvited:
		id := a.verdict.invitation.ID
		if !a.verdict.adopted && !slices.ContainsFunc(rows, func(row *Member) bool { return row.InvitationID == id }) {
			s.tryRevokeLeftOver(ctx, RevokeRequest{id, a.organization()})
		}
	case row == nil, !row.needsMembership(a.organization()):
		_ = s.removeAdded(ctx, a)
	}
	return d, nil
}

// unwritten reports an attempt whose verdict could not be written. all is true if the whole
// statement failed, such as while the database is down, and false if only this row did, such as by
// an error of OnChange. The claim ends by itself, and the next attempt finds Clerk's response again.
func (s *Service) unwritten(ctx context.Context, a *attempt, err error, all bool) *delivery {
	s.log.ErrorContext(ctx, "result not saved; will be looked up again", "member", *a.row, "cause", logError(err))
	if a.verdict.claimOnly() {
		err = errors.Join(a.verdict.report(a.row).Err, err)
	}
	return &delivery{Result: Result{a.row, err}, stop: all}
}

// revokeLeftOvers revokes the open invitations for the address of a settled attempt that this library created
// and no row refers to. The invitation that the row referred to before is revoked even if Clerk does not list it
// yet. Clerk is listed first and the rows are read second, so an invitation created in between is not in the
// list. Failures are only logged; Reconcile does the same.
func (s *Service) revokeLeftOvers(ctx context.Context, a *attempt) {
	previous := a.row.InvitationID // a.row is the row before it was settled
	if a.olderRevoked {
		previous = ""
	}
	list, err := s.listInvitations(ctx, a.row, "")
	if err != nil {
		// Continue, because the previous invitation is known without the list.
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
	}
	list = openOrUnlisted(list, previous)
	var q Query
	for i := range list {
		m, ours := list[i].mark()
		if ours {
			q.IDs = append(q.IDs, m.ID)
		}
		// Members of several tenants may wait for an adopted invitation, and for any invitation of an organization.
		if a.organization() != "" || !ours && list[i].ID == previous {
			q.Emails = []string{a.row.Email}
		}
	}
	if len(q.IDs)+len(q.Emails) == 0 {
		return
	}
	rows, err := s.store.Find(ctx, q)
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
		return
	}
	for i := range list {
		if isLeftOver(&list[i], previous, rows) {
			s.tryRevokeLeftOver(ctx, RevokeRequest{list[i].ID, a.organization()})
		}
	}
}

// openOrUnlisted returns the pending invitations of a list without revoked ones, and the previous
// invitation if it is not in the list. Clerk's list may lag, so a missing invitation may be open.
func openOrUnlisted(list []Invitation, previous string) []Invitation {
	listed := slices.ContainsFunc(list, func(inv Invitation) bool { return inv.ID == previous })
	list = slices.DeleteFunc(list, func(inv Invitation) bool { return inv.Status != InvitationPending })
	if previous != "" && !listed {
		list = slices.Insert(list, 0, Invitation{ID: previous})
	}
	return list
}

// isLeftOver reports whether an invitation of this library is no longer needed. rows contains every member
// that may refer to it. previous is the row's invitation before it was settled. An invitation without a marker has no
// creator, so each member that waits for it has adopted it, also the row itself.
func isLeftOver(inv *Invitation, previous string, rows []*Member) bool {
	m, ours := inv.mark()
	creator := slices.IndexFunc(rows, func(row *Member) bool { return row.ID == m.ID })
	adopted := slices.ContainsFunc(rows, func(row *Member) bool {
		return row.ID != m.ID && row.Status.Waits() && row.InvitationID == inv.ID
	})
	switch {
	case adopted:
		return false
	case !ours:
		return inv.ID == previous
	case creator < 0:
		return false // it may belong to another application
	}
	return !keeps(rows[creator], inv, m.Send)
}

// keeps reports whether the row still needs a pending invitation with its ID in the marker.
func keeps(row *Member, inv *Invitation, send int) bool {
	if send > row.Send {
		return true // the row is older than the invitation, as after restoring a backup
	}
	if row.Status != StatusReserved && row.Status != StatusPending {
		return false
	}
	underWay := row.Sent < row.Send && send == row.Send // not written yet
	return row.InvitationID == inv.ID || underWay
}

// tryRevokeLeftOver is revokeLeftOver for callers that continue after a failure, because Reconcile finds the
// invitation again.
func (s *Service) tryRevokeLeftOver(ctx context.Context, r RevokeRequest) {
	if err := s.revokeLeftOver(ctx, r); err != nil && codeOf(err) != codeNotPending { // otherwise it has ended
		s.log.WarnContext(ctx, "left-over invitation not revoked", "invitation", r.ID, "cause", logError(err))
	}
}

// revokeLeftOver revokes an invitation that no row refers to.
func (s *Service) revokeLeftOver(ctx context.Context, r RevokeRequest) error {
	err := s.revoke(ctx, r)
	if err == nil {
		s.log.InfoContext(ctx, "left-over invitation revoked", "invitation", r.ID)
	}
	return err
}

// revoke revokes an invitation at Clerk. It succeeds if Clerk says that the invitation is revoked.
func (s *Service) revoke(ctx context.Context, r RevokeRequest) error {
	inv, err := request(ctx, s, endpointsOf(r.Organization).revoke, "clerk.RevokeInvitation", func(ctx context.Context) (*Invitation, error) {
		return s.api.RevokeInvitation(ctx, r)
	})
	switch {
	case codeOf(err) == codeAlreadyRevoked:
		return nil
	case err == nil && inv.Status != "" && inv.Status != InvitationRevoked:
		return errNotRevoked
	}
	return err
}
