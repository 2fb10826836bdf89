package clerkinvite

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// ReconcileOptions are the options of Reconcile; nil is all defaults.
type ReconcileOptions struct {
	DryRun bool   // look and report; change nothing, neither here nor at Clerk
	Limit  int    // at most so many members; 0 is all
	Cursor string // ReconcileReport.Cursor of the call to go on with
}

// ReconcileReport says what Reconcile saw and did. In a dry run, what it would have done.
type ReconcileReport struct {
	Members     int // pending and active members looked at
	Invitations int // invitations of Clerk's looked at

	Activated int // now active: the person has joined, and the webhook never came
	Removed   int // now removed: the user was deleted, or is in the tenant under another address
	Expired   int // now expired
	Revoked   int // now revoked: withdrawn in Clerk's dashboard

	LeftOver int // open invitations that no member stands for: revoked at Clerk
	Unknown  int // open invitations with the id of a member that is not in this database: left alone
	Ahead    int // open invitations newer than their member's row, as after restoring a backup: left alone

	// Elsewhere are members whose invitation was accepted, while no Clerk user holds
	// their address verified: they have probably signed up under another. Clerk does not
	// say who accepted an invitation.
	Elsewhere []*Member

	Cursor string // "" if everything was looked at; else where to go on
}

// Reconcile asks Clerk what webhooks did not say, and repairs: people who have joined,
// users who were deleted, invitations that ran out or were revoked in the dashboard, and
// invitations of ours at Clerk that no member stands for.
//
// It looks at all pending and active members, in the order of tenant and id, with one
// request per 100 of them, and then at the invitations, with one per 500: all that are
// open, and those that have ended since the oldest that a member still waits for. An
// invitation that has ended is looked up once more, with 100 others. Nothing is concluded
// from what a list does not show.
//
// When it stops early, because of its Limit, its context, the store or Clerk, the report
// says how far it came, and Cursor where to go on. One member or invitation that cannot be
// changed stops nothing: the first such error is returned at the end.
//
// If Clerk knows none of ten or more active members, nor an invitation of one, the key is
// probably of another instance: then nothing is changed, and a *[ClerkInvitationError] says
// so at the end. Without the whole picture, with a Limit or a Cursor, nobody is removed
// before Clerk has shown one who is known. Nor is anybody who became active in the last
// five minutes, whom Clerk may not show yet.
//
// Errors: *[InvalidParamsError], *[ClerkInvitationError], a store's error as it is.
// Reconcile is safe for concurrent use, also from several processes, and for repetition.
func (s *Service) Reconcile(ctx context.Context, opts *ReconcileOptions) (_ *ReconcileReport, err error) {
	ctx, seen := s.observe(ctx, "Reconcile")
	defer seen.done(&err)
	r := &reconciliation{
		s: s, report: &ReconcileReport{}, began: s.now(),
		users: make(map[string]bool), odd: make(map[string]bool), moved: make(map[string]bool),
		ahead: make(map[string]bool), late: make(map[string]bool),
	}
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.Limit < 0 {
		return r.report, &InvalidParamsError{"Limit", "is negative"}
	}
	if r.at, err = decodePosition(r.opts.Cursor); err != nil {
		return r.report, err
	}
	if err = s.learnGates(ctx); err == nil {
		err = r.check(ctx)
	}
	if err == nil {
		err = r.members(ctx)
	}
	if err == nil && r.complete {
		err = r.invitations(ctx)
	}
	if err != nil || !r.complete {
		r.report.Cursor = r.position().encode()
	}
	if err == nil && r.doubtful() {
		err = &ClerkInvitationError{Op: "reconcile", Outcome: Fault, Err: errNobodyKnown}
	}
	return r.report, cmp.Or(err, r.first)
}

// reconcilePage is how many members are read at once.
const reconcilePage = 1000

// reconciliation is one call of Reconcile.
type reconciliation struct {
	s        *Service
	opts     ReconcileOptions
	report   *ReconcileReport
	began    time.Time
	at       position // the last member read
	complete bool     // all members are read

	pending, active batch           // read and not looked up yet
	missing         []*Member       // active under the id of a user whom Clerk does not know
	users           map[string]bool // whether Clerk knows the user ids that were looked up
	asked           bool            // Clerk was asked whether it knows one of our invitations
	first           error           // of what could not be changed

	odd   map[string]bool // addresses that Clerk stumbles over
	moved map[string]bool // members that were moved, or would be but for the dry run
	ahead map[string]bool // members of whom Clerk has a newer invitation than the row
	late  map[string]bool // members who were looked up after their invitation had run out
}

// position is how far a reconciliation is. It is what a cursor holds.
type position struct {
	TenantID string `json:"t,omitempty"`
	ID       string `json:"i,omitempty"`

	// Oldest is when the oldest invitation was made that a member looked at still waits
	// for. Nil: nobody waits.
	Oldest *time.Time `json:"o,omitempty"`

	Known   bool `json:"k,omitempty"` // Clerk knows somebody whom this database knows
	Absent  int  `json:"a,omitempty"` // how many active members Clerk does not know
	Waiting int  `json:"w,omitempty"` // how many members have an invitation that Clerk should know
}

func (p position) encode() string {
	b, err := json.Marshal(p)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodePosition(cursor string) (p position, err error) {
	if cursor == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(b, &p) != nil || checkText(p.TenantID, 255) != "" || p.ID != "" && !storeutil.IsUUID(p.ID) {
		return p, &InvalidParamsError{"Cursor", "is none that Reconcile has returned"}
	}
	return p, nil
}

// batch collects members until a request for them is worth while.
type batch struct {
	rows  []*Member
	keys  map[string]bool // different addresses, or user ids
	start position        // before the first of them
}

func (b *batch) add(row *Member, key string, before position) {
	if len(b.rows) == 0 {
		b.start, b.keys = before, make(map[string]bool)
	}
	b.rows, b.keys[key] = append(b.rows, row), true
}

// sorted returns the keys of the batch in order.
func (b *batch) sorted() []string { return slices.Sorted(maps.Keys(b.keys)) }

// position returns where to go on: before the first member that is not done.
func (r *reconciliation) position() position {
	at := r.at
	for _, b := range []*batch{&r.pending, &r.active} {
		before := b.start
		if len(b.rows) > 0 && (before.TenantID < at.TenantID || before.TenantID == at.TenantID && before.ID < at.ID) {
			at.TenantID, at.ID = before.TenantID, before.ID
		}
	}
	return at
}

// members looks at all members, or at as many as the limit allows.
func (r *reconciliation) members(ctx context.Context) error {
	for !r.complete {
		n := reconcilePage
		if r.opts.Limit > 0 {
			if n = min(n, r.opts.Limit-r.report.Members); n == 0 {
				break
			}
		}
		rows, err := r.s.store.Page(ctx, PageQuery{
			Statuses: []Status{StatusPending, StatusActive}, AfterTenantID: r.at.TenantID, AfterID: r.at.ID, Limit: n,
		})
		if err != nil {
			return err
		}
		r.complete = len(rows) < n
		for _, row := range rows {
			before := r.at
			r.at.TenantID, r.at.ID = row.TenantID, row.ID
			r.report.Members++
			if row.Status == StatusActive {
				r.active.add(row, row.ClerkUserID, before)
			} else {
				r.pending.add(row, row.Email, before)
			}
			if len(r.active.keys) == findBatch {
				err = r.lookUpActive(ctx)
			}
			if len(r.pending.keys) == findBatch && err == nil {
				err = r.lookUpPending(ctx)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := r.lookUpPending(ctx); err != nil {
		return err
	}
	if err := r.lookUpActive(ctx); err != nil {
		return err
	}
	if err := r.ask(ctx); err != nil {
		return err
	}
	// Few, and nobody else: the users of a small instance can all be gone.
	if r.complete && r.opts.Cursor == "" && !r.doubtful() {
		return r.remove(ctx)
	}
	return nil
}

// doubtful reports whether the key looks like that of another instance: nobody is known, of many, or of
// few beside whom many wait whose invitations must be known.
func (r *reconciliation) doubtful() bool {
	return !r.at.Known && (r.at.Absent >= 10 || r.at.Absent > 0 && r.at.Waiting >= 10)
}

// ask finds out, for a key that looks like that of another instance, whether Clerk knows
// an invitation of a member, among the newest.
func (r *reconciliation) ask(ctx context.Context) error {
	if r.asked || !r.doubtful() {
		return nil
	}
	r.asked = true
	for _, status := range []string{"", InvitationRevoked} { // without a status: all but the revoked
		list, rows, err := r.listPage(ctx, InvitationQuery{Status: status, Limit: listPage, NewestFirst: true})
		if err != nil {
			return err
		}
		for i := range list {
			m, _ := list[i].mark()
			r.at.Known = r.at.Known || rows[m.ID] != nil && rows[m.ID].InvitationID == list[i].ID
		}
	}
	return nil
}

var errNobodyKnown = errors.New("clerkinvite: Clerk knows none of the active members; is the secret key that of another instance? Nothing was changed")

// lookUpPending asks Clerk who of those that wait has joined.
func (r *reconciliation) lookUpPending(ctx context.Context) error {
	now := r.s.now()
	if _, err := r.resolve(ctx, r.pending.sorted(), nil); err != nil {
		return err // the batch stays, so that the cursor is before it
	}
	for _, row := range r.pending.rows {
		if r.moved[row.ID] {
			continue
		}
		r.at.Waiting++
		if row.InvitedAt == nil {
			r.at.Oldest = &time.Time{}
		} else if r.at.Oldest == nil || row.InvitedAt.Before(*r.at.Oldest) {
			r.at.Oldest = row.InvitedAt
		}
		// What has run out just now by this machine's clock may not have by Clerk's.
		r.late[row.ID] = row.overdue(now.Add(-clockSkew))
	}
	r.pending = batch{}
	return nil
}

// freshUser is how long after somebody has become active Clerk's look-ups may not show
// them yet: whether it shows its own writes at once is unknown.
const freshUser = 5 * time.Minute

// clockSkew is by how much this machine's clock and Clerk's may differ.
const clockSkew = 10 * time.Minute

// resolve makes those active who hold one of the addresses verified, in all tenants, and
// returns them.
func (r *reconciliation) resolve(ctx context.Context, emails []string, accepted acceptance) (users []User, err error) {
	emails = slices.DeleteFunc(emails, func(email string) bool { return r.odd[email] })
	for chunk := range slices.Chunk(emails, findBatch) {
		found, failures := r.s.findByEmail(ctx, chunk)
		for email, failure := range failures {
			if failure.shared || !aboutOneAddress(failure.err) {
				return nil, r.s.clerkError(ctx, "find users", failure.err)
			}
			// One that Clerk stumbles over holds up nobody else.
			r.s.log.LogAttrs(ctx, slog.LevelWarn, "one address could not be looked up", slog.Any("cause", logError(failure.err)))
			r.odd[email] = true
		}
		found = slices.DeleteFunc(found, func(u User) bool {
			return !slices.ContainsFunc(chunk, u.holdsVerified)
		})
		if err := r.join(ctx, found, accepted); err != nil {
			return nil, err
		}
		users = append(users, found...)
	}
	return users, nil
}

// join makes the members active who wait for these users.
func (r *reconciliation) join(ctx context.Context, users []User, accepted acceptance) error {
	var q Query
	for i := range users {
		q.Emails, q.UserIDs = append(q.Emails, users[i].verifiedEmails()...), append(q.UserIDs, users[i].ID)
	}
	if len(users) == 0 {
		return nil
	}
	rows, err := r.s.store.Find(ctx, q)
	if err != nil {
		return err
	}
	var changes []Change
	var of []*User
	again := make(map[string]*User) // those who need another round
	for i := range users {
		u := &users[i]
		// resolutions sees for itself which of the rows are the user's.
		own, later, err := r.s.resolutions(ctx, u, rows, accepted)
		if err != nil {
			return err
		}
		switch {
		case r.dry():
			own = append(own, later...)
		case len(later) > 0:
			again[u.ID] = u
		}
		changes, of = append(changes, own...), append(of, slices.Repeat([]*User{u}, len(own))...)
	}
	err = r.apply(ctx, changes, func(i int) { again[of[i].ID] = of[i] })
	if err != nil || r.dry() {
		return err
	}
	for _, u := range again {
		moved, err := r.s.resolveUser(ctx, u, accepted)
		for _, m := range moved {
			r.count(m)
		}
		r.failed(ctx, err)
	}
	return ctx.Err()
}

// dry reports whether nothing may be changed.
func (r *reconciliation) dry() bool { return r.opts.DryRun || r.doubtful() }

// failed notes that something could not be changed.
func (r *reconciliation) failed(ctx context.Context, err error) {
	if err != nil {
		r.first = cmp.Or(r.first, err)
		r.s.log.LogAttrs(ctx, slog.LevelWarn, "not reconciled", slog.Any("cause", logError(err)))
	}
}

// apply makes changes and counts them; in a dry run it counts only. A change that has
// been overtaken is left to the next time, or to overtaken.
func (r *reconciliation) apply(ctx context.Context, changes []Change, overtaken func(i int)) error {
	if len(changes) == 0 {
		return nil
	}
	if r.dry() {
		for _, c := range changes {
			if r.opts.DryRun {
				r.count(c.New)
			}
		}
		return nil
	}
	results, err := r.s.apply(ctx, r.s.store, changes)
	if err != nil {
		return err
	}
	for i, result := range results {
		switch {
		case result.Err == nil:
			r.count(result.Member)
		case !errors.Is(result.Err, ErrConflict) && !errors.Is(result.Err, ErrUserTaken):
			r.failed(ctx, result.Err)
		case overtaken != nil:
			overtaken(i)
		}
	}
	return nil
}

// count notes a member that was moved.
func (r *reconciliation) count(m *Member) {
	if r.moved[m.ID] {
		return // in a dry run it is met again
	}
	r.moved[m.ID] = true
	switch m.Status {
	case StatusActive:
		r.report.Activated++
	case StatusRemoved:
		r.report.Removed++
	case StatusExpired:
		r.report.Expired++
	case StatusRevoked:
		r.report.Revoked++
	default:
	}
}

// lookUpActive asks Clerk which users are still there.
func (r *reconciliation) lookUpActive(ctx context.Context) error {
	if len(r.active.rows) == 0 {
		return nil
	}
	if err := r.lookUpIDs(ctx, r.active.sorted()); err != nil {
		return err
	}
	// Not before now: hours may lie between the look-up and here.
	recent := r.began.Add(-freshUser)
	for _, row := range r.active.rows {
		there, looked := r.users[row.ClerkUserID]
		switch {
		case !looked:
			r.s.log.WarnContext(ctx, "the member's user id is none of Clerk's", "member", *row)
		case !there && (row.SettledAt == nil || row.SettledAt.Before(recent)):
			if r.missing = append(r.missing, row); len(r.missing) > reconcilePage && !r.at.Known {
				r.missing = r.missing[1:] // the next reconciliation finds them again
			}
		}
	}
	for id := range r.active.keys {
		delete(r.users, id) // there may be millions
	}
	r.active = batch{}
	if err := r.ask(ctx); err != nil || !r.at.Known {
		return err
	}
	return r.remove(ctx)
}

// lookUpIDs finds out which users are there, of those ids that were not looked up before.
func (r *reconciliation) lookUpIDs(ctx context.Context, ids []string) error {
	ids = slices.DeleteFunc(ids, func(id string) bool {
		_, looked := r.users[id]
		return looked || !clerkID.MatchString(id) // one that no user of Clerk's can have: the row came from elsewhere
	})
	if len(ids) == 0 {
		return nil
	}
	users, err := r.s.findUsers(ctx, UserQuery{IDs: ids})
	if err != nil {
		return r.s.clerkError(ctx, "find users", err)
	}
	for _, id := range ids {
		there := slices.ContainsFunc(users, func(u User) bool { return u.ID == id })
		r.users[id] = there
		if r.at.Known = r.at.Known || there; !there {
			r.at.Absent++
		}
	}
	return nil
}

// check looks up some active members before anything is changed: another instance has
// other users with the addresses that members wait for.
func (r *reconciliation) check(ctx context.Context) error {
	if r.at.Known {
		return nil
	}
	rows, err := r.s.store.Page(ctx, PageQuery{Statuses: []Status{StatusActive}, Limit: findBatch})
	if err != nil {
		return err
	}
	var ids []string
	for _, row := range rows {
		ids = append(ids, row.ClerkUserID)
	}
	slices.Sort(ids)
	was := r.at.Absent
	err = r.lookUpIDs(ctx, slices.Compact(ids))
	if r.opts.Cursor != "" {
		r.at.Absent = max(was, r.at.Absent-was) // counted by an earlier call
	}
	return cmp.Or(err, r.ask(ctx))
}

// remove ends the members whose users are gone.
func (r *reconciliation) remove(ctx context.Context) error {
	var changes []Change
	for _, row := range r.missing {
		changes = append(changes, Change{row, ended(*row, StatusRemoved, ReasonUserDeleted, r.s.now())})
	}
	if err := r.apply(ctx, changes, nil); err != nil {
		return err
	}
	r.missing = nil
	return nil
}

// invitations looks at Clerk's invitations: those that are open, and those that have
// ended since the oldest one that a member waits for.
func (r *reconciliation) invitations(ctx context.Context) error {
	if err := r.open(ctx); err != nil || r.at.Oldest == nil {
		return err
	}
	revoked, err := r.ended(ctx, InvitationRevoked)
	if err != nil {
		return err
	}
	var changes []Change
	for _, row := range revoked {
		changes = append(changes, Change{row, ended(*row, StatusRevoked, ReasonAtClerk, r.s.now())})
	}
	if err := r.apply(ctx, changes, nil); err != nil {
		return err
	}

	accepted, err := r.ended(ctx, InvitationAccepted)
	if err != nil {
		return err
	}
	// Each of them was accepted, so whoever holds the address verified has joined.
	users, err := r.resolve(ctx, emailsOf(accepted), func(_ context.Context, row *Member) (bool, error) {
		return slices.ContainsFunc(accepted, func(m *Member) bool { return m.ID == row.ID && m.InvitationID == row.InvitationID }), nil
	})
	if err != nil {
		return err
	}
	for _, row := range accepted {
		if !r.moved[row.ID] && !r.odd[row.Email] && holder(users, row.Email) == nil {
			r.report.Elsewhere = append(r.report.Elsewhere, row)
		}
	}

	expired, err := r.ended(ctx, InvitationExpired)
	if err != nil {
		return err
	}
	// Users come first. For those who were looked up after the end they have come.
	open := slices.DeleteFunc(slices.Clone(expired), func(row *Member) bool { return r.late[row.ID] })
	if _, err = r.resolve(ctx, emailsOf(open), nil); err != nil {
		return err
	}
	changes = nil
	for _, row := range expired {
		if !r.moved[row.ID] && !r.odd[row.Email] {
			changes = append(changes, Change{row, ended(*row, StatusExpired, "", r.s.now())})
		}
	}
	return r.apply(ctx, changes, nil)
}

// open looks at all open invitations: those that no member stands for are revoked, and
// members learn when theirs runs out if they did not know. Clerk is listed first and the
// rows are read second.
func (r *reconciliation) open(ctx context.Context) error {
	var leftOver []string
	err := r.list(ctx, InvitationPending, time.Time{}, func(list []Invitation, rows map[string]*Member) error {
		var changes []Change
		for i := range list {
			inv := &list[i]
			m, ours := inv.mark()
			row := rows[m.ID]
			switch {
			case !ours:
			case row == nil:
				r.report.Unknown++ // may be another application's
			case m.Send > row.Send:
				r.report.Ahead++
				r.ahead[row.ID] = true
			case !keeps(row, inv, m.Send) || r.opts.DryRun && r.moved[row.ID]:
				leftOver = append(leftOver, inv.ID)
			case row.Status == StatusPending && row.InvitationID == inv.ID && inv.ExpiresAt != nil &&
				(row.ExpiresAt == nil || !row.ExpiresAt.Equal(inv.ExpiresAt.Truncate(time.Microsecond))):
				next, at := *row, inv.ExpiresAt.UTC().Truncate(time.Microsecond)
				next.ExpiresAt = &at
				changes = append(changes, Change{row, &next})
			}
		}
		if r.dry() {
			return nil
		}
		return r.apply(ctx, changes, nil)
	})
	if err != nil {
		return err
	}
	// Not before all is listed: what is revoked leaves the list, and the next page would
	// begin too late. An invitation that no row stands for does not find one later.
	for _, id := range leftOver {
		if r.doubtful() {
			return nil
		}
		if !r.opts.DryRun {
			err := r.s.revoke(ctx, id)
			var api *APIError
			switch isAPI := errors.As(err, &api); {
			case err == nil:
				r.s.log.InfoContext(ctx, "left-over invitation revoked", "invitation", id)
			case ctx.Err() != nil, isAPI && ofInstance(api):
				return r.s.clerkError(ctx, "revoke invitation", err)
			case isAPI && api.StatusCode/100 == 4: // accepted or run out meanwhile
				continue
			default:
				r.failed(ctx, r.s.clerkError(ctx, "revoke invitation", err))
				continue
			}
		}
		r.report.LeftOver++
	}
	return nil
}

// ended returns the members that are pending on an invitation which Clerk lists as ended.
func (r *reconciliation) ended(ctx context.Context, status string) (members []*Member, err error) {
	err = r.list(ctx, status, *r.at.Oldest, func(list []Invitation, rows map[string]*Member) error {
		for i := range list {
			m, _ := list[i].mark()
			row := rows[m.ID]
			// What waits for a resend is delivery's.
			if row != nil && row.Status == StatusPending && row.InvitationID == list[i].ID && !row.Due() && !r.moved[row.ID] && !r.ahead[row.ID] {
				members = append(members, row)
			}
		}
		return nil
	})
	return members, err
}

// list goes through Clerk's invitations of one status, and with each page through the
// members that they are for, by id. With a time it stops before those that are older,
// the newest first.
func (r *reconciliation) list(ctx context.Context, status string, oldest time.Time, page func(list []Invitation, rows map[string]*Member) error) error {
	q := InvitationQuery{Status: status, Limit: listPage, NewestFirst: !oldest.IsZero()}
	for {
		list, rows, err := r.listPage(ctx, q)
		if err != nil {
			return err
		}
		r.report.Invitations += len(list)
		if err := page(list, rows); err != nil {
			return err
		}
		if len(list) < q.Limit || q.NewestFirst && list[len(list)-1].CreatedAt.Before(oldest) {
			return nil
		}
		q.Offset += q.Limit
	}
}

// listPage reads a page of Clerk's invitations, and then the members that they are for, by id.
func (r *reconciliation) listPage(ctx context.Context, q InvitationQuery) ([]Invitation, map[string]*Member, error) {
	if err := r.s.open(endpointList); err != nil {
		return nil, nil, r.s.clerkError(ctx, "list invitations", err)
	}
	inside, seen := r.s.observe(ctx, "clerk.ListInvitations")
	list, err := r.s.api.ListInvitations(inside, q)
	seen.end(err)
	if err = r.s.limited(ctx, endpointList, err); err != nil {
		return nil, nil, r.s.clerkError(ctx, "list invitations", err)
	}
	var ids []string
	for i := range list {
		if m, ours := list[i].mark(); ours {
			ids = append(ids, m.ID)
		}
	}
	rows := make(map[string]*Member, len(ids))
	if len(ids) == 0 {
		return list, rows, nil
	}
	found, err := r.s.store.Find(ctx, Query{IDs: ids})
	for _, row := range found {
		rows[row.ID] = row
	}
	return list, rows, err
}

// emailsOf returns the different addresses of members.
func emailsOf(members []*Member) []string {
	var emails []string
	for _, m := range members {
		emails = append(emails, m.Email)
	}
	slices.Sort(emails)
	return slices.Compact(emails)
}
