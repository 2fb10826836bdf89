package clerkinvite

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// members checks all members, or as many as the limit allows.
func (r *reconciliation) members(ctx context.Context) error {
	for !r.complete {
		n := reconcilePage
		if r.opts.Limit > 0 {
			n = min(n, r.opts.Limit-r.report.Members)
		}
		if n == 0 {
			break
		}
		rows, err := r.s.store.Page(ctx, PageQuery{
			Statuses: []Status{StatusPending, StatusActive}, AfterTenantID: r.progress.TenantID, AfterID: r.progress.ID, Limit: n,
		})
		if err != nil {
			return err
		}
		r.complete = len(rows) < n
		for _, row := range rows {
			if err := r.member(ctx, row); err != nil {
				return err
			}
		}
	}
	steps := []func(context.Context) error{r.lookUpPending, r.lookUpActive, r.askForProof}
	if !r.complete { // the later call that reads Clerk's invitations does not have these rows
		steps = append(steps, r.readAdopted, r.expireOverdue)
	}
	return inOrder(ctx, append(steps, r.removeMissing, r.reportMissing, r.removeLeavers)...)
}

// member adds a row to its batch, and looks up a full batch.
func (r *reconciliation) member(ctx context.Context, row *Member) error {
	before := r.progress
	r.progress.TenantID, r.progress.ID = row.TenantID, row.ID
	r.report.Members++
	if row.Status == StatusActive {
		r.active.add(row, row.ClerkUserID, before)
		if len(r.active.keys) == lookupSize {
			return r.lookUpActive(ctx)
		}
		return nil
	}
	if row.InvitedAt == nil && !row.overdue(r.began.Add(-clockSkew)) {
		// The member was adopted, and its invitation may have ended long ago. The lists must show its times first.
		r.noteWaiting(row)
		return nil
	}
	r.pending.add(row, row.Email, before)
	if len(r.pending.keys) == lookupSize {
		return r.lookUpPending(ctx)
	}
	return nil
}

// batch collects members until there are enough for a request.
type batch struct {
	rows  []*Member
	keys  map[string]bool // addresses or user IDs
	start progress        // before the first of rows
}

func (b *batch) add(row *Member, key string, before progress) {
	if len(b.rows) == 0 {
		b.start, b.keys = before, make(map[string]bool)
	}
	b.rows, b.keys[key] = append(b.rows, row), true
}

func (b *batch) sortedKeys() []string { return slices.Sorted(maps.Keys(b.keys)) }

// lookUpPending asks Clerk which of the pending members have joined.
func (r *reconciliation) lookUpPending(ctx context.Context) error {
	now := r.s.now()
	users, err := r.resolve(ctx, r.pending.sortedKeys(), nil)
	if err != nil {
		return err // the batch stays, so that the cursor is before it
	}
	for _, row := range r.pending.rows {
		if r.changed[row.ID] {
			continue
		}
		r.noteWaiting(row)
		if !row.overdue(now.Add(-clockSkew)) || row.Due() || r.unreadable[row.Email] || r.unresolved[row.ID] {
			continue
		}
		r.checkedAfterExpiry[row.ID] = !r.keySeemsWrong() // with a wrong key, resolve has changed nothing
		if u := verifiedBy(users, row.Email); u != nil && u.createdBeforeExpiry(row) {
			continue // Clerk's lists show whether this user has accepted
		}
		// Until the key is proven right, keep at most 1,000 in memory. The next reconciliation finds the others.
		if r.progress.Known != nil || len(r.overdue) < reconcilePage {
			r.overdue = append(r.overdue, row)
		}
	}
	r.pending = batch{}
	return r.askForProof(ctx)
}

// noteWaiting makes sure that the lists of ended invitations are read back to the member's invitation, or to the
// end if its creation time is unknown.
func (r *reconciliation) noteWaiting(row *Member) {
	if row.InvitedAt == nil {
		r.progress.Oldest = &time.Time{}
	} else if r.progress.Oldest == nil || row.InvitedAt.Before(*r.progress.Oldest) {
		r.progress.Oldest = row.InvitedAt
	}
}

// expireOverdue expires members whose invitation expired long ago, even if Clerk does not list it as
// expired, unless a user from before the expiry has verified the address. It does nothing until Clerk has
// shown a known user or invitation, because another instance does not know the users.
func (r *reconciliation) expireOverdue(ctx context.Context) error {
	if r.progress.Known == nil {
		return nil
	}
	var changes []Change
	for _, row := range r.overdue {
		// If Clerk has shown another expiry, the next reconciliation decides. That row was changed, so apply would
		// not change this version of it. A dry run finds it in unwritten.
		if !r.changed[row.ID] && !r.hasNewer[row.ID] && !r.unresolved[row.ID] && r.unwritten[row.ID] == nil {
			changes = append(changes, Change{row, asEnded(*row, StatusExpired, "", r.s.now())})
		}
	}
	r.overdue = nil
	_, err := r.apply(ctx, changes)
	return err
}

// readAdopted reads the times of overdue adopted members' invitations, because their expiry is only assumed. Like
// expireOverdue, it does nothing until Clerk has shown a known user or invitation.
func (r *reconciliation) readAdopted(ctx context.Context) error {
	if r.progress.Known == nil {
		return nil
	}
	h := newHealth(r.s, maxExcused)
	for _, row := range r.overdue {
		if row.InvitedAt != nil {
			continue
		}
		invitations, err := r.s.listAll(ctx, row)
		if err != nil {
			r.unresolved[row.ID] = true
			if err := r.excuse(ctx, h, r.s.clerkError(ctx, "list invitations", err)); err != nil {
				return err
			}
			continue
		}
		h.noteResponse()
		if _, err := r.withTimes(ctx, invitations); err != nil {
			return err
		}
	}
	return nil
}

// lookUpActive asks Clerk which of the active members' users still exist.
func (r *reconciliation) lookUpActive(ctx context.Context) error {
	if len(r.active.rows) == 0 {
		return nil
	}
	if err := r.lookUpIDs(ctx, r.active.sortedKeys()); err != nil {
		return err
	}
	for _, row := range r.active.rows {
		if !clerkID.MatchString(row.ClerkUserID) {
			r.s.log.WarnContext(ctx, "member has an invalid Clerk user ID", "tenant", row.TenantID, "member", row.ID) // the ID may be an address
		}
		// As in lookUpPending, keep at most 1,000 in memory until the key is proven right.
		if r.noteUser(row) && (r.keyProvenFor(row) || len(r.missing) < reconcilePage) {
			r.missing = append(r.missing, row)
		}
	}
	if err := inOrder(ctx, r.askForProof, r.removeMissing, r.moveMembers, r.noteLeavers, r.removeLeavers); err != nil {
		return err // the batch stays, so that the cursor is before it
	}
	for id := range r.active.keys {
		delete(r.users, id) // to limit memory
	}
	r.active = batch{}
	return nil
}

// moveMembers gives the active members of the batch their users' new addresses.
func (r *reconciliation) moveMembers(ctx context.Context) error {
	var changes []Change
	for _, row := range r.active.rows {
		u := r.users[row.ClerkUserID]
		switch {
		case u == nil || r.changed[row.ID] || !u.gaveUp(row):
		case u.verifiedPrimary() == "":
			r.s.logStaleAddress(ctx, row, whyUnverified)
			r.report.OutOfDate = append(r.report.OutOfDate, row)
		default:
			changes = append(changes, Change{row, withEmail(*row, u.verifiedPrimary())})
		}
	}
	if r.dryRun() {
		return r.countMoves(ctx, changes)
	}
	results, err := r.s.applyBounded(ctx, changes)
	if err != nil {
		return err
	}
	for i, result := range results {
		row, now, err := changes[i].Old, result.Member, result.Err
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrEmailTaken) { // updateAddress handles both
			now, err = r.s.updateAddress(ctx, r.users[row.ClerkUserID], row, true)
		}
		switch {
		case err != nil:
			r.note(ctx, err)
		case now == nil || now.Status != StatusActive: // left in the meantime
		case now.Email == row.Email:
			r.report.OutOfDate = append(r.report.OutOfDate, now)
		default:
			r.count(StatusActive, now)
		}
	}
	return ctx.Err()
}

// countMoves counts the changes that moveMembers would make.
func (r *reconciliation) countMoves(ctx context.Context, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	var q Query
	for _, c := range changes {
		q.Refs = append(q.Refs, c.New.Ref())
	}
	found, err := r.s.store.Find(ctx, q)
	if err != nil {
		return err
	}
	for try := range 2 { // moveMembers tries again too, after the others have moved; only then second addresses give way
		var taken []Change
		for _, c := range changes {
			if slices.ContainsFunc(found, func(m *Member) bool {
				m = cmp.Or(r.unwritten[m.ID], m)
				return m.Ref() == c.New.Ref() && (try == 0 || !m.isSecondAddress())
			}) {
				taken = append(taken, c)
			} else {
				r.unwritten[c.Old.ID] = c.New
				r.count(StatusActive, c.New)
			}
		}
		changes = taken
	}
	for _, c := range changes {
		r.s.logStaleAddress(ctx, c.Old, whyTaken)
		r.report.OutOfDate = append(r.report.OutOfDate, c.Old)
	}
	return nil
}

// isFresh reports whether a member was settled so recently that Clerk's lists may not show its user yet.
func (m Member) isFresh(now time.Time) bool {
	return m.SettledAt != nil && !m.SettledAt.Before(now.Add(-freshUser))
}

// noteUser notes whether Clerk's list shows an active member's user, and reports whether the user is missing.
func (r *reconciliation) noteUser(row *Member) (missing bool) {
	u, lookedUp := r.users[row.ClerkUserID]
	switch {
	case u != nil:
		r.noteShown(row)
	case lookedUp && !row.isFresh(r.began): // not now: this call may have waited for hours
		r.noteAbsent(row)
		return true
	}
	return false
}

// noteAbsent notes that Clerk's list leaves out an active member's user.
func (r *reconciliation) noteAbsent(row *Member) {
	if since := row.settledNotBefore(); r.progress.Absent == "" || since.Before(r.progress.AbsentSince) {
		r.progress.Absent, r.progress.AbsentSince = row.ClerkUserID, since
	}
}

// lookUpIDs asks Clerk for the users with these IDs, except those that were already looked up.
func (r *reconciliation) lookUpIDs(ctx context.Context, ids []string) error {
	ids = slices.DeleteFunc(ids, func(id string) bool {
		_, lookedUp := r.users[id]
		return lookedUp || r.unreadable[id] || !clerkID.MatchString(id) // a row that the host wrote may have an ID that Clerk cannot have
	})
	if len(ids) == 0 {
		return nil
	}
	l := r.s.findByID(ctx, ids)
	if err := r.noteUnreadable(ctx, l); err != nil {
		return err
	}
	for _, id := range ids {
		if r.unreadable[id] {
			continue
		}
		r.users[id] = nil
		if i := slices.IndexFunc(l.users, func(u User) bool { return u.ID == id }); i >= 0 {
			r.users[id] = &l.users[i]
		}
	}
	return nil
}

// noteUnreadable notes the addresses and IDs whose look-up failed. It returns an error if the failure also
// concerns others.
func (r *reconciliation) noteUnreadable(ctx context.Context, l *lookup) error {
	for key, failure := range l.failures {
		if failure.several || failureOf(failure.err, "").ofInstance() || !l.health.excuseFailure(ctx) {
			return r.s.clerkError(ctx, "find users", failure.err)
		}
		r.s.log.LogAttrs(ctx, slog.LevelWarn, "one user could not be looked up", slog.Any("cause", logError(failure.err)))
		r.unreadable[key] = true
	}
	return nil
}

// removeMissing removes the members whose users no longer exist, if it is certain that the key is right for
// them. A user that is missing from a list may still exist, so it reads each user from Clerk.
func (r *reconciliation) removeMissing(ctx context.Context) error {
	var unproven []*Member
	var changes []Change
	gone := make(map[string]bool) // by user ID; a user can be in many tenants
	h := newHealth(r.s, maxExcused)
	for _, row := range r.missing {
		if !r.keyProvenFor(row) {
			unproven = append(unproven, row)
			continue
		}
		if _, asked := gone[row.ClerkUserID]; !asked {
			u, err := r.s.readUser(ctx, row.ClerkUserID)
			gone[row.ClerkUserID] = errors.Is(err, ErrNotFound)
			switch {
			case gone[row.ClerkUserID]:
				h.noteResponse()
			case err == nil:
				r.users[u.ID] = u // its address may have changed
				h.noteResponse()
			default:
				if err := r.excuse(ctx, h, err); err != nil {
					return err
				}
			}
		}
		if gone[row.ClerkUserID] {
			changes = append(changes, Change{row, asEnded(*row, StatusRemoved, ReasonUserDeleted, r.s.now())})
		}
	}
	if _, err := r.apply(ctx, changes); err != nil {
		return err
	}
	r.missing = unproven
	return nil
}

// reportMissing reports the members that removeMissing did not remove because the key may be another instance's.
func (r *reconciliation) reportMissing(ctx context.Context) error {
	if len(r.missing) == 0 || r.keySeemsWrong() {
		return nil
	}
	r.report.Missing = len(r.missing)
	oldest := slices.MinFunc(r.missing, func(a, b *Member) int { return a.settledNotBefore().Compare(b.settledNotBefore()) })
	r.s.log.WarnContext(ctx, "members of missing users not removed", "members", len(r.missing), "oldest", *oldest)
	return nil
}

// resolve makes the members with these addresses active, in all tenants, if a user has verified the
// address. accepted contains the invitations that Clerk lists as accepted. It returns these users.
func (r *reconciliation) resolve(ctx context.Context, emails []string, accepted map[string]bool) (users []User, err error) {
	emails = slices.DeleteFunc(emails, func(email string) bool { return r.unreadable[email] })
	for chunk := range slices.Chunk(emails, lookupSize) {
		l := r.s.findByEmail(ctx, chunk)
		if err := r.noteUnreadable(ctx, l); err != nil {
			return nil, err
		}
		found := slices.DeleteFunc(l.users, func(u User) bool { return !slices.ContainsFunc(chunk, u.hasVerified) })
		if err := r.join(ctx, found, accepted); err != nil {
			return nil, err
		}
		users = append(users, found...)
	}
	return users, nil
}

// join makes the members that wait for these users active. It writes the changes of all users in one
// statement. Users who need more than that are then resolved one by one.
func (r *reconciliation) join(ctx context.Context, users []User, accepted map[string]bool) error {
	if len(users) == 0 {
		return nil
	}
	rows, err := r.rowsOf(ctx, users)
	if err != nil {
		return err
	}
	p, err := r.proveMemberships(ctx, users, rows, accepted)
	if err != nil {
		return err
	}
	var changes []Change
	var owners []*User // of changes
	unfinished := make(map[string]*User)
	for i := range users {
		u := &users[i]
		first, postponed := resolutions(u, rows, p, r.s.now()) // ignores other users' rows
		switch {
		case r.dryRun():
			first = append(first, postponed...)
		case len(postponed) > 0:
			unfinished[u.ID] = u // resolves the postponed rows after the first are written
		}
		changes, owners = append(changes, first...), append(owners, slices.Repeat([]*User{u}, len(first))...)
	}
	overtaken, err := r.apply(ctx, changes)
	if err != nil {
		return err
	}
	for _, i := range overtaken {
		unfinished[owners[i].ID] = owners[i]
	}
	for _, u := range unfinished {
		r.joinOne(ctx, u, rows, p)
	}
	return ctx.Err()
}

// proveMemberships returns a proof of which of the users are members of the organizations that they are
// awaited in. If Clerk fails for one organization, its members stay unresolved.
func (r *reconciliation) proveMemberships(ctx context.Context, users []User, rows []*Member, accepted map[string]bool) (proof, error) {
	p := proof{accepted: accepted, members: make(map[Membership]bool)}
	awaited := make(map[string][]string) // user IDs by organization
	for _, row := range rows {
		organization := row.organization()
		if organization == "" || !row.Status.Waits() {
			continue
		}
		if u := verifiedBy(users, row.Email); u != nil {
			awaited[organization] = append(awaited[organization], u.ID)
		}
	}
	for _, organization := range slices.Sorted(maps.Keys(awaited)) {
		err := r.s.addMemberships(ctx, organization, awaited[organization], p)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || failureOf(err, "").ofInstance() {
			return p, err
		}
		r.note(ctx, err)
		for _, row := range rows {
			r.unresolved[row.ID] = r.unresolved[row.ID] || row.organization() == organization
		}
	}
	return p, nil
}

// noteLeavers notes the active members of the batch whom Clerk does not list as members of their organization.
func (r *reconciliation) noteLeavers(ctx context.Context) error {
	byOrganization := make(map[string][]*Member)
	for _, row := range r.active.rows {
		organization := row.organization()
		if organization != "" && !row.isFresh(r.began) && r.users[row.ClerkUserID] != nil && !r.changed[row.ID] {
			byOrganization[organization] = append(byOrganization[organization], row)
		}
	}
	for _, organization := range slices.Sorted(maps.Keys(byOrganization)) {
		rows := byOrganization[organization]
		ids := make([]string, len(rows))
		for i, row := range rows {
			ids[i] = row.ClerkUserID
		}
		listed, err := r.s.findMembers(ctx, organization, ids)
		if err != nil {
			err = r.s.clerkError(ctx, "find memberships", err)
			if ctx.Err() != nil || failureOf(err, "").ofInstance() {
				return err
			}
			r.note(ctx, err)
			continue
		}
		for _, row := range rows {
			if listed[row.ClerkUserID] != nil {
				r.progress.SeesMembers = true
			} else if len(r.leavers) < reconcilePage { // to limit memory
				r.leavers[row.ID] = row
			}
		}
	}
	return nil
}

// readLeavers reads the leavers that an earlier call has noted in its cursor.
func (r *reconciliation) readLeavers(ctx context.Context) error {
	if len(r.progress.Leavers) == 0 {
		return nil
	}
	rows, err := r.s.store.Find(ctx, Query{IDs: r.progress.Leavers})
	for _, row := range rows {
		if row.Status == StatusActive && row.organization() != "" && !row.isFresh(r.began) {
			r.leavers[row.ID] = row
		}
	}
	return err
}

// removeLeavers removes the leavers whom Clerk does not show when asked about each alone either. A list can be
// incomplete, so it waits until Clerk has shown the membership of another member.
func (r *reconciliation) removeLeavers(ctx context.Context) error {
	if !r.progress.SeesMembers {
		return nil
	}
	var changes []Change
	h := newHealth(r.s, maxExcused)
	for _, id := range slices.Sorted(maps.Keys(r.leavers)) {
		row := r.leavers[id]
		alone, err := r.s.findMembers(ctx, row.organization(), []string{row.ClerkUserID})
		if err != nil {
			if err := r.excuse(ctx, h, r.s.clerkError(ctx, "find memberships", err)); err != nil {
				return err
			}
			continue
		}
		h.noteResponse()
		if alone[row.ClerkUserID] == nil {
			changes = append(changes, Change{row, asEnded(*row, StatusRemoved, ReasonLeftOrganization, r.s.now())})
		}
	}
	if _, err := r.apply(ctx, changes); err != nil {
		return err
	}
	clear(r.leavers)
	return nil
}

// rowsOf returns the rows of the users and of their verified addresses. In a dry run they have the changes that the
// reconciliation would have made.
func (r *reconciliation) rowsOf(ctx context.Context, users []User) ([]*Member, error) {
	var q Query
	for i := range users {
		q.Emails, q.UserIDs = append(q.Emails, users[i].verifiedEmails()...), append(q.UserIDs, users[i].ID)
	}
	rows, err := r.s.store.Find(ctx, q)
	if err != nil {
		return nil, err
	}
	for i, row := range rows {
		rows[i] = cmp.Or(r.unwritten[row.ID], row)
	}
	return rows, nil
}

// joinOne resolves one user and counts the changes. rows contains the user's rows before the changes.
func (r *reconciliation) joinOne(ctx context.Context, u *User, rows []*Member, p proof) {
	changed, err := r.s.resolveUser(ctx, u, p)
	before := make(map[string]Status)
	for _, row := range rows {
		before[row.ID] = row.Status
		if err != nil && u.hasVerified(row.Email) {
			r.unresolved[row.ID] = true
		}
	}
	for _, m := range changed {
		r.count(before[m.ID], m)
	}
	r.note(ctx, err)
}
