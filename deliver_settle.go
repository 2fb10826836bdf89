package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// settle writes what was decided, in one statement, and repeats it for the rows that
// somebody else has changed meanwhile: there the row as it is now decides. As long as
// the same send waits to be settled the decision holds, whoever has the claim,
// because the fact is known here. Otherwise an invitation that was made for nothing
// is revoked, and the row is reported as it is.
func (s *Service) settle(ctx context.Context, l lease, attempts ...*attempt) {
	var open []*attempt
	for _, a := range attempts {
		if a.settled == nil && a.next != nil {
			open = append(open, a)
		}
	}
	if len(open) == 0 {
		return
	}
	s.write(ctx, l, open)
	for _, a := range open {
		if a.leftOver && !a.claimOnly && a.settled.Member != nil {
			s.sweep(ctx, l, a)
		}
	}
}

// write is settle without what comes after.
func (s *Service) write(ctx context.Context, l lease, attempts []*attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	for _, a := range attempts {
		if a.user != nil {
			if err := s.joinByOneAddress(ctx, a); err != nil {
				s.unwritten(ctx, a, err, false)
			}
		}
	}
	for range 10 {
		var open []*attempt
		var changes []Change
		for _, a := range attempts {
			if a.settled == nil {
				open, changes = append(open, a), append(changes, Change{a.row, a.next(*a.row)})
			}
		}
		if len(open) == 0 {
			return
		}
		results, err := s.apply(ctx, s.store, changes)
		for i, a := range open {
			rowErr := err
			if err == nil {
				rowErr = results[i].Err
			}
			switch {
			case rowErr == nil:
				a.done(results[i].Member)
			case errors.Is(rowErr, ErrUserTaken):
				rowErr = s.secondAddress(ctx, a, changes[i].New.ClerkUserID)
			case errors.Is(rowErr, ErrConflict):
				rowErr = s.overtaken(ctx, a)
			}
			if rowErr != nil {
				s.unwritten(ctx, a, rowErr, err != nil)
			}
		}
	}
	for _, a := range attempts {
		if a.settled == nil {
			s.unwritten(ctx, a, ErrConflict, false)
		}
	}
}

// done ends an attempt whose decision is written.
func (a *attempt) done(m *Member) {
	a.settled = &delivery{Result: Result{Member: m}}
	if a.result != nil {
		a.settled = a.result(m)
	}
}

// joinByOneAddress settles the row of a user with several addresses, of whom other
// rows may wait: resolving decides which one is the member, here as everywhere.
func (s *Service) joinByOneAddress(ctx context.Context, a *attempt) error {
	if _, err := s.resolveUser(ctx, a.user, nil); err != nil {
		return err
	}
	rows, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}, UserIDs: []string{a.user.ID}})
	if err != nil {
		return err
	}
	var row, active *Member
	for _, m := range rows {
		if m.ID == a.row.ID {
			row = m
		}
		if m.TenantID == a.row.TenantID && m.Status == StatusActive {
			active = m
		}
	}
	switch {
	case row == nil:
		a.settled = &delivery{Result: Result{Err: errPurged}}
	case row.Due(): // not decided there; the row alone decides
		a.row = row
	case row.Reason == ReasonSecondAddress && active != nil:
		a.settled = &delivery{Result: Result{row, &DuplicateEmailError{row.Ref(), active}}}
	default:
		a.settled = &delivery{Result: Result{Member: row}}
	}
	return nil
}

// secondAddress decides anew for a row whose user is in the tenant under another address.
func (s *Service) secondAddress(ctx context.Context, a *attempt, userID string) error {
	others, err := s.store.Find(ctx, Query{UserIDs: []string{userID}})
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.TenantID == a.row.TenantID {
			a.next = func(m Member) *Member { return ended(m, StatusRemoved, ReasonSecondAddress, s.now()) }
			a.result = func(m *Member) *delivery {
				return &delivery{Result: Result{m, &DuplicateEmailError{m.Ref(), other}}}
			}
			return nil
		}
	}
	return nil // it has left meanwhile: the same once more
}

// errPurged is what an attempt ends with whose member has been erased meanwhile.
var errPurged = fmt.Errorf("clerkinvite: the member was purged: %w", ErrConflict)

// overtaken decides anew for a row that somebody else has changed.
func (s *Service) overtaken(ctx context.Context, a *attempt) error {
	now, err := s.store.Find(ctx, Query{IDs: []string{a.row.ID}})
	switch {
	case err != nil:
		return err
	case a.claimOnly && len(now) == 1 && (now[0].Status == StatusReserved || now[0].Due()):
		a.settled = a.result(now[0])
		return nil
	case len(now) == 1 && now[0].Due() && now[0].Send == a.row.Send:
		a.row = now[0]
		return nil
	}
	if a.made != nil && (len(now) == 0 || now[0].InvitationID != a.made.ID) {
		s.revokeLeftOver(ctx, a.made.ID)
	}
	if len(now) == 0 {
		a.settled = &delivery{Result: Result{Err: errPurged}}
	} else {
		a.settled = &delivery{Result: Result{Member: now[0]}}
	}
	return nil
}

// unwritten ends an attempt whose decision could not be written: none could, as while
// the database is down, or this one, because of a hook's error. A claim ends by itself;
// what Clerk has said the next attempt finds again.
func (s *Service) unwritten(ctx context.Context, a *attempt, err error, none bool) {
	s.log.ErrorContext(ctx, "not written; the next attempt finds out again", "member", *a.row, "cause", logError(err))
	a.settled = &delivery{Result: Result{a.row, err}, stop: none}
	if a.claimOnly {
		a.settled.Err = errors.Join(a.result(a.row).Err, err)
	}
}

// sweep revokes, of the pending invitations for the address of a member that was
// settled, those of ours that no row stands for. Clerk is listed first and the rows are
// read second: what was made in between is not in the list. Failures are logged only;
// Reconcile does the same.
func (s *Service) sweep(ctx context.Context, l lease, a *attempt) {
	ctx, cancel := l.settling(ctx)
	defer cancel()
	list, err := s.listInvitations(ctx, a.row.Email, InvitationPending)
	var q Query
	for i := range list {
		if m, ours := list[i].mark(); ours {
			q.IDs = append(q.IDs, m.ID)
		} else if list[i].ID == a.row.InvitationID {
			q.Emails = []string{a.row.Email}
		}
	}
	var rows []*Member
	if err == nil && len(q.IDs)+len(q.Emails) > 0 {
		rows, err = s.store.Find(ctx, q)
	}
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitations not looked for", "cause", logError(err))
		return
	}
	for i := range list {
		m, ours := list[i].mark()
		at := slices.IndexFunc(rows, func(row *Member) bool { return row.ID == m.ID })
		// One whose member this database does not know may be another application's.
		over := ours && at >= 0 && !keeps(rows[at], &list[i], m.Send)
		// One that was made before the library came has no mark: that the row named it until now
		// makes it ours, unless another tenant's names it as well.
		before := !ours && list[i].ID == a.row.InvitationID &&
			!slices.ContainsFunc(rows, func(row *Member) bool { return row.InvitationID == list[i].ID })
		if over || before {
			s.revokeLeftOver(ctx, list[i].ID)
		}
	}
}

// keeps reports whether a pending invitation that carries the row's id stays open.
func keeps(row *Member, inv *Invitation, send int) bool {
	if send > row.Send {
		return true // the row is older than the invitation: a restored backup
	}
	if row.Status != StatusReserved && row.Status != StatusPending {
		return false
	}
	return row.InvitationID == inv.ID || row.Sent < row.Send && send == row.Send
}

// revokeLeftOver revokes an invitation that no row stands for. A failure is logged
// only: Reconcile finds it again.
func (s *Service) revokeLeftOver(ctx context.Context, invitationID string) {
	err := s.revoke(ctx, invitationID)
	if err != nil {
		s.log.WarnContext(ctx, "left-over invitation not revoked", "invitation", invitationID, "cause", logError(err))
		return
	}
	s.log.InfoContext(ctx, "left-over invitation revoked", "invitation", invitationID)
}

// revoke revokes an invitation at Clerk. One that is revoked or gone already is no error.
func (s *Service) revoke(ctx context.Context, invitationID string) error {
	if err := s.open(endpointRevoke); err != nil {
		return err
	}
	inside, seen := s.observe(ctx, "clerk.RevokeInvitation")
	_, err := s.api.RevokeInvitation(inside, invitationID)
	seen.end(err)
	err = s.limited(ctx, endpointRevoke, err)
	var api *APIError
	if errors.As(err, &api) && (api.Code == codeAlreadyRevoked || api.StatusCode == 404 && api.Code == codeResourceNotFound) {
		return nil
	}
	return err
}
