package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// settle writes the verdicts of attempts that are not settled yet, and revokes the invitations that they leave behind.
func (s *Service) settle(ctx context.Context, l lease, attempts ...*attempt) {
	open := filter(unsettled(attempts), func(a *attempt) bool { return a.verdict.kind != undecided })
	if len(open) == 0 {
		return
	}
	provisional := filter(open, (*attempt).isProvisional)
	s.write(ctx, l, filter(open, func(a *attempt) bool { return !a.isProvisional() })) // first, because confirm may hang
	s.confirm(ctx, l, provisional)
	s.write(ctx, l, unsettled(provisional))
	s.updateDuplicates(ctx, l, open)
	s.revokeLeftOvers(ctx, l, open)
}

// unsettled returns the attempts that have no delivery yet.
func unsettled(attempts []*attempt) []*attempt {
	return filter(attempts, func(a *attempt) bool { return a.delivery == nil })
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
		updated, err := s.updateAddress(ctx, u, dup.Member, true)
		if err != nil {
			s.log.WarnContext(ctx, "not all members of a user resolved", "member", *dup.Member, "cause", logError(err))
		} else if updated != nil {
			dup.Member = updated
		}
	}
}

// isProvisional reports whether the verdict may change before it can be written.
func (a *attempt) isProvisional() bool {
	return a.mustUndoAdding() || a.mustCheckOlder() || a.verdict.choosesAmongAddresses()
}

// confirm makes provisional verdicts final, by requests to Clerk and changes of other rows. It settles attempts whose
// verdict must not be written.
func (s *Service) confirm(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	for _, a := range attempts {
		s.undoAdding(ctx, a) // first, because the row may then have to keep waiting
		s.checkOlder(ctx, a)
		if !a.verdict.choosesAmongAddresses() {
			continue
		}
		if err := s.resolveFirst(ctx, a); err != nil {
			s.settleUnwritten(ctx, a, err, false)
		}
	}
}

// mustCheckOlder reports whether this or an earlier attempt may have revoked the older invitation of a resend into an
// organization that ends without a new one.
func (a *attempt) mustCheckOlder() bool {
	keepsOlder := a.isResend() && (a.verdict.withdraw || a.verdict.kind == isRefused || a.verdict.kind == isAbandoned)
	return a.organization() != "" && keepsOlder && !a.olderRevoked
}

// checkOlder finds out whether the older invitation that mustCheckOlder reports was revoked. If Clerk does not say, the
// verdict changes: the row keeps waiting.
func (s *Service) checkOlder(ctx context.Context, a *attempt) {
	v := &a.verdict
	if !a.mustCheckOlder() {
		return
	}
	revoked, err := s.listInvitations(ctx, a.row, InvitationRevoked)
	switch {
	case err == nil:
		a.olderRevoked = slices.ContainsFunc(revoked, func(inv Invitation) bool { return inv.ID == a.row.InvitationID })
	case s.deletedOrganization(ctx, a.row, err):
		a.olderRevoked = true
	case saysDeletedOrganization(err) && s.backoff(a.row.Attempts) >= time.Hour:
		a.olderRevoked = true // after so long, believe it without a proof that the key is the right one
	default:
		s.log.WarnContext(ctx, "call to Clerk failed", "op", "list invitations", "member", *a.row, "cause", logError(err))
		kind := isPostponed
		if v.kind == isUncertain { // the create may still arrive
			kind = isUncertain
		}
		wait, told := RetryAfter(err)
		if !told {
			wait = s.backoff(a.row.Attempts)
		}
		// Without withdraw and leftOver, because the row keeps waiting.
		*v = verdict{kind: kind, op: "list invitations", err: err, reason: reasonOf(err), dueAt: s.now().Add(wait)}
	}
}

// maxWrites is how many times one verdict is written if other processes keep changing its row.
const maxWrites = 10

// write writes the verdicts in one statement, and settles the attempts. If another process has changed a row, write
// repeats the statement for that row.
func (s *Service) write(ctx context.Context, l lease, attempts []*attempt) {
	for _, a := range attempts {
		if a.verdict.kind == isUncertain && !a.verdict.withdraw {
			// The claim stays until the lease ends, so that a late request arrives before the next attempt.
			a.delivery = a.verdict.report(a.row)
		}
	}
	open := unsettled(attempts)
	for n := 0; n < maxWrites && len(open) > 0; n++ {
		s.writeOnce(ctx, l, open)
		open = unsettled(open)
	}
	for _, a := range open {
		s.settleUnwritten(ctx, a, ErrConflict, false)
	}
}

// writeOnce runs write's statement once.
func (s *Service) writeOnce(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	s.refreshClock(ctx)
	changes := make([]Change, len(attempts))
	for i, a := range attempts {
		changes[i] = Change{a.row, a.changedRow(s.now())}
	}
	results, err := s.apply(ctx, s.store, changes)
	for i, a := range attempts {
		rowErr := err
		if err == nil {
			rowErr = s.settleWritten(ctx, a, changes[i].New, results[i])
		}
		if rowErr != nil {
			s.settleUnwritten(ctx, a, rowErr, err != nil)
		}
	}
}

// settleWritten settles an attempt after the statement has returned r for its row. If it leaves the attempt unsettled, the
// verdict must be written again.
func (s *Service) settleWritten(ctx context.Context, a *attempt, wanted *Member, r Result) error {
	switch {
	case r.Err == nil:
		a.delivery = a.verdict.report(r.Member)
		return nil
	case errors.Is(r.Err, ErrUserTaken):
		return s.decideSecondAddress(ctx, a, wanted.ClerkUserID)
	case errors.Is(r.Err, ErrConflict):
		return s.settleOvertaken(ctx, a)
	}
	return r.Err
}

// settleUnwritten settles an attempt whose verdict could not be written. The claim ends by itself, and the next attempt
// decides again. all is true if the whole statement failed, such as while the database is down; then the pass ends.
func (s *Service) settleUnwritten(ctx context.Context, a *attempt, err error, all bool) {
	s.log.ErrorContext(ctx, "result not saved; will be looked up again", "member", *a.row, "cause", logError(err))
	if a.verdict.keepsWaiting() { // keep Clerk's error, which isDelayed needs
		err = errors.Join(a.verdict.report(a.row).Err, err)
	}
	a.delivery = &delivery{Result: Result{a.row, err}, stop: all}
}

// choosesAmongAddresses reports whether v links a user with several verified addresses, and it is not known that the
// person accepted the row's invitation. Rows of the other addresses may wait for the user too.
func (v *verdict) choosesAmongAddresses() bool {
	return v.user != nil && v.invitation == nil && len(v.user.verifiedEmails()) > 1
}

// resolveFirst applies the rules of Resolve to the linked user, because they choose the row that becomes active.
func (s *Service) resolveFirst(ctx context.Context, a *attempt) error {
	u := a.verdict.user
	p := proof{}
	if organization := a.organization(); organization != "" {
		p.members = map[Membership]bool{{OrganizationID: organization, UserID: u.ID}: true}
	}
	if _, err := s.resolveUser(ctx, u, p); err != nil {
		// The error may concern another tenant's row. If this row still waits, the verdict is written.
		s.log.WarnContext(ctx, "not all members of a user resolved", "member", *a.row, "cause", logError(err))
	}
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, UserIDs: []string{u.ID}})
	if err == nil {
		s.settleResolved(ctx, a, rows)
	}
	return err
}

// settleResolved settles the attempt if Resolve or another caller has decided for its row. If the row is still due in the
// same organization, the attempt stays unsettled, and its verdict must be written. rows are the attempt's row and those of the user.
func (s *Service) settleResolved(ctx context.Context, a *attempt, rows []*Member) {
	own := slices.IndexFunc(rows, func(m *Member) bool { return m.ID == a.row.ID })
	if own < 0 {
		_ = s.removeAdded(ctx, a)
		a.delivery = &delivery{Result: Result{Err: errPurged}}
		return
	}
	row := rows[own]
	mayJoin := row.Status.Waits() && row.organization() == a.organization()
	if mayJoin && row.Due() { // in any send, because the user has verified the address
		a.row = row
		return
	}
	// Keep the membership that the attempt may have added if the row can still become active by it, or already needs it.
	if !mayJoin && !row.needsMembership(a.organization()) {
		_ = s.removeAdded(ctx, a)
	}
	a.delivery = &delivery{Result: Result{Member: row}}
	active := slices.IndexFunc(rows, func(m *Member) bool { return m.TenantID == row.TenantID && m.Status == StatusActive })
	if row.Reason == ReasonSecondAddress && active >= 0 {
		a.delivery.Err = &DuplicateEmailError{a.row.Ref(), rows[active]}
	}
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

// settleOvertaken handles an attempt whose row another process has changed. If the verdict still matters, the attempt
// stays unsettled, and must be written again. Otherwise the row stays unchanged.
func (s *Service) settleOvertaken(ctx context.Context, a *attempt) error {
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, Emails: []string{a.row.Email}})
	if err != nil {
		return err
	}
	own := slices.IndexFunc(rows, func(row *Member) bool { return row.ID == a.row.ID })
	if own < 0 {
		s.undo(ctx, a, nil, rows)
		a.delivery = &delivery{Result: Result{Err: errPurged}}
		return nil
	}
	row := rows[own]
	switch {
	case row.Due() && a.verdict.keepsWaiting() && !row.hasClaimOf(a.row):
		a.delivery = a.verdict.report(row) // another attempt has claimed the row, so there is nothing to write
	case row.Due() && row.Send == a.row.Send: // still the same send: write again
		a.row = row
	default: // the send has ended in another way; perhaps the member was then invited again, or into another organization
		s.undo(ctx, a, row, rows)
		a.delivery = &delivery{Result: Result{Member: row}}
	}
	return nil
}

// undo revokes the attempt's invitation unless one of the rows refers to it; another tenant's member may have adopted
// it. If the attempt has created none, undo ends the membership that it may have added, unless row, the member's
// current one, needs it. row is nil if the member was purged.
func (s *Service) undo(ctx context.Context, a *attempt, row *Member, rows []*Member) {
	switch {
	case a.verdict.kind == isInvited:
		id := a.verdict.invitation.ID
		if !a.verdict.adopted && !slices.ContainsFunc(rows, func(m *Member) bool { return m.InvitationID == id }) {
			s.tryRevokeLeftOver(ctx, RevokeRequest{id, a.organization()})
		}
	case row == nil, !row.needsMembership(a.organization()):
		_ = s.removeAdded(ctx, a)
	}
}
