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

// ReconcileOptions are the options of Reconcile; nil means all defaults.
type ReconcileOptions struct {
	DryRun bool   // report only; change nothing, neither here nor at Clerk
	Limit  int    // maximum number of members; 0 means all
	Cursor string // ReconcileReport.Cursor of the call to continue
}

// ReconcileReport reports what Reconcile found and did, or would have done in a dry run.
type ReconcileReport struct {
	Members     int // pending and active members checked
	Invitations int // Clerk invitations checked

	Activated int // now active: the person has joined, and the webhook was lost
	Removed   int // now removed: the user was deleted, or is in the tenant under another address
	Expired   int // now expired
	Revoked   int // now revoked: in Clerk's dashboard
	Moved     int // active members who now have their user's new address

	LeftOver int // open invitations that this library created and no member refers to: revoked at Clerk
	Unknown  int // open invitations with the ID of a member that is not in this database: unchanged
	Newer    int // open invitations newer than their member's row, as after restoring a backup: unchanged
	Missing  int // active members whose user Clerk does not show, nor anyone settled before them: unchanged

	// AcceptedElsewhere contains members whose invitation is valid and was accepted, although no Clerk
	// user has verified their address. They have probably signed up under another address. Clerk does
	// not say who accepted an invitation.
	AcceptedElsewhere []*Member

	// OutOfDate contains active members who keep an address that their user has given up, because the
	// user's primary address is not verified or another member of the tenant has it.
	OutOfDate []*Member

	Cursor string // "" if everything was checked; otherwise where to continue
}

// Reconcile compares the rows with Clerk, and applies changes that no webhook reported: people who have
// joined, users who were deleted or have another address, invitations that expired or were revoked in
// the dashboard. It also revokes open invitations that this library created and no member refers to.
//
// It checks all pending and active members, ordered by tenant and ID, with one request per 100.
// Then it checks the invitations, with one request per 500. It reads all open invitations, and those
// created after the oldest invitation that a member waits for. Members whose invitation has ended are
// looked up again, 100 per request, and so are adopted members whose invitation no list shows. Absence
// from a list proves nothing. A call that ends at its Limit does not page through the lists.
// Instead, it makes two requests for each adopted member whose assumed expiry has passed, to read the real one.
//
// It makes at most five requests per second after the first 25. This leaves at least a quarter of
// Clerk's limit to other callers, even for a development instance.
//
// It stops early when its Limit is reached, its context ends, or the store or Clerk fails. The
// report then covers the completed part, and Cursor says where to continue. A member or an invitation
// that cannot be changed does not stop it. The first such error is returned at the end.
//
// It removes a member only if Clerk reports that the member's user does not exist, and shows the user or
// the invitation of a member that was settled (Member.SettledAt) no later. Otherwise the secret key may be
// another instance's, and the report counts the member as Missing. This takes one request for each user
// that is missing from Clerk's list. It never removes a member that became active in the last five
// minutes, because Clerk may not show the user yet.
//
// For members of organizations it makes more requests: one per organization in each 100 members, and, if
// Config.Organizations is set, one per 500 invitations of all organizations. It removes an active member who
// is missing from two responses about the organization's members, if Clerk shows some other member of an
// organization who is active here.
//
// If the user of an active member has given up the member's address, the member gets the user's verified
// primary address, unless another member of the tenant has it. If that other member was removed as a
// second address of the same user, it is erased first.
//
// If Clerk leaves out an active member's user and shows neither another member's user nor an
// invitation that a member refers to, the secret key is probably another instance's. Reconcile then
// changes nothing and returns a *[ClerkInvitationError]. The same happens if all users of a small
// instance were deleted and no member refers to any of the 500 newest invitations at Clerk. Remove
// these members, and those counted as Missing, with Remove.
//
// Errors: *[InvalidParamsError]; *[ClerkInvitationError]; the context's and the store's error,
// unchanged. Reconcile is safe for concurrent use, in several processes too, and safe to retry.
func (s *Service) Reconcile(ctx context.Context, opts *ReconcileOptions) (*ReconcileReport, error) {
	return s.reconcile(ctx, opts, nil)
}

// reconcile does the work of Reconcile. If t is not nil, it renews t before each request.
func (s *Service) reconcile(ctx context.Context, opts *ReconcileOptions, t *turn) (_ *ReconcileReport, err error) {
	ctx, op := s.observe(ctx, "Reconcile")
	defer op.end(&err)
	ctx = withStoredLimits(withPace(ctx, &pace{turn: t}))
	r := s.newReconciliation()
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.Limit < 0 {
		return r.report, &InvalidParamsError{"Limit", "is negative"}
	}
	if r.progress, err = decodeCursor(r.opts.Cursor); err != nil {
		return r.report, err
	}
	if err = s.setClock(ctx, s.store); err == nil {
		r.began = s.now()
		err = r.run(ctx)
	}
	if err != nil || !r.complete {
		r.report.Cursor = r.cursor()
	}
	if err == nil && r.wrongKey() {
		err = &ClerkInvitationError{Op: "reconcile", Outcome: Fault, Err: errWrongKey}
	}
	return r.report, cmp.Or(err, r.firstError)
}

func (s *Service) newReconciliation() *reconciliation {
	return &reconciliation{
		s: s, report: &ReconcileReport{},
		users: make(map[string]*User), unreadable: make(map[string]bool), changed: make(map[string]bool), corrected: make(map[string]*Member),
		unresolved: make(map[string]bool), hasNewer: make(map[string]bool), checkedAfterExpiry: make(map[string]bool), leavers: make(map[string]*Member),
	}
}

var errWrongKey = errors.New("clerkinvite: Clerk shows no user and no invitation of any member; the secret key seems to belong to another instance; nothing was changed")

const (
	// reconcilePage is how many members are read per statement.
	reconcilePage = 1000

	// freshUser is how long a new user may be missing from Clerk's lists. Clerk does not document
	// whether its lists show writes immediately.
	freshUser = 5 * time.Minute

	// clockSkew is the largest expected difference between this machine's clock and Clerk's.
	clockSkew = 10 * time.Minute
)

// reconciliation is one call of Reconcile.
type reconciliation struct {
	s        *Service
	opts     ReconcileOptions
	report   *ReconcileReport
	began    time.Time // by the store's clock
	progress progress
	complete bool // all members have been read

	pending, active batch     // read but not yet looked up
	missing         []*Member // active as users whom Clerk's list leaves out
	overdue         []*Member // pending past the expiry, and no user who existed by then has verified the address
	askedForOurs    bool      // Clerk was asked whether it knows one of our invitations
	organizations   bool      // the invitations into organizations are being checked
	firstError      error     // about a member or an invitation that could not be changed

	users              map[string]*User   // by ID, those that were looked up; nil if Clerk's list leaves one out
	unreadable         map[string]bool    // addresses and user IDs that Clerk fails to look up
	corrected          map[string]*Member // members with Clerk's times, which a dry run does not write
	changed            map[string]bool    // members that were changed, or would be without DryRun
	unresolved         map[string]bool    // members that could not be checked or made active, because Clerk, the store or a hook failed
	hasNewer           map[string]bool    // members with a newer invitation at Clerk than in their row
	checkedAfterExpiry map[string]bool    // members that were looked up after their invitation had expired
	leavers            map[string]*Member // active members whose user is missing from Clerk's list of their organization
}

// progress is the state that a reconciliation needs to continue. A cursor contains it.
type progress struct {
	TenantID string `json:"t,omitempty"` // of the last member read
	ID       string `json:"i,omitempty"`

	// Oldest is the creation time of the oldest invitation that a checked member waits for, or nil.
	Oldest *time.Time `json:"o,omitempty"`

	// Known is when the oldest member was settled whose user or invitation Clerk has shown, or nil.
	Known *time.Time `json:"k,omitempty"`

	// Absent is the user of the oldest active member that Clerk's list leaves out, settled at AbsentSince.
	Absent      string    `json:"a,omitempty"`
	AbsentSince time.Time `json:"s,omitzero"`

	SeesMembers bool     `json:"m,omitempty"` // Clerk shows the membership of an active member's user
	Leavers     []string `json:"l,omitempty"` // IDs of reconciliation.leavers, at most maxLeavers
}

// maxLeavers limits the length of a cursor. The next reconciliation finds the others.
const maxLeavers = 20

func (p progress) encode() string {
	b, err := json.Marshal(p)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(cursor string) (p progress, err error) {
	if cursor == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(b, &p) != nil || checkText(p.TenantID, 255) != "" || p.ID != "" && !storeutil.IsUUID(p.ID) ||
		len(p.Leavers) > maxLeavers || slices.ContainsFunc(p.Leavers, func(id string) bool { return !storeutil.IsUUID(id) }) ||
		p.Absent != "" && !clerkID.MatchString(p.Absent) {
		return p, &InvalidParamsError{"Cursor", "is not a cursor returned by Reconcile"}
	}
	return p, nil
}

// cursor says where to continue: before the first member that was not looked up.
func (r *reconciliation) cursor() string {
	p := r.progress
	p.Leavers = slices.Sorted(maps.Keys(r.leavers))
	p.Leavers = p.Leavers[:min(len(p.Leavers), maxLeavers)]
	for _, b := range []*batch{&r.pending, &r.active} {
		if len(b.rows) > 0 && cmp.Or(cmp.Compare(b.start.TenantID, p.TenantID), cmp.Compare(b.start.ID, p.ID)) < 0 {
			p.TenantID, p.ID = b.start.TenantID, b.start.ID
		}
	}
	if p.Known != nil { // then the next call's own members decide whether it asks for more
		p.Absent, p.AbsentSince = "", time.Time{}
	}
	return p.encode()
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

// run does the work of Reconcile: members first, then invitations.
func (r *reconciliation) run(ctx context.Context) error {
	if err := r.checkKey(ctx); err != nil {
		return err
	}
	if err := inOrder(ctx, r.readLeavers, r.members); err != nil || !r.complete {
		return err
	}
	return r.invitations(ctx)
}

// wrongKey reports whether the secret key seems to belong to another instance.
func (r *reconciliation) wrongKey() bool { return r.progress.Known == nil && r.progress.Absent != "" }

// noteShown notes that Clerk has shown the member's user or invitation.
func (r *reconciliation) noteShown(row *Member) {
	r.progress.Known = earlier(r.progress.Known, row.settledNotAfter())
}

// isKeyOf reports whether the key belongs to the instance where row was settled, because Clerk has shown a
// member that was settled when row was, or earlier. If the key was replaced by another instance's, members invited
// or linked since then are known there. They are newer, so they prove nothing about older members.
func (r *reconciliation) isKeyOf(row *Member) bool { return r.knownSince(row.settledNotBefore()) }

// knownSince reports whether Clerk has shown a member that was settled by the given time.
func (r *reconciliation) knownSince(t time.Time) bool {
	return r.progress.Known != nil && !r.progress.Known.After(t)
}

// A row that the library wrote has a SettledAt.
func (m Member) settledNotBefore() time.Time { return *cmp.Or(m.SettledAt, &m.ReservedAt) }
func (m Member) settledNotAfter() *time.Time { return cmp.Or(m.SettledAt, &m.UpdatedAt) }

// earlier returns the earlier of two times, of which nil is the latest.
func earlier(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// isKeyOf does Reconcile's check of the secret key for another method that removes members. row is an active
// member whose user Clerk does not show.
func (s *Service) isKeyOf(ctx context.Context, row *Member) (bool, error) {
	r := s.newReconciliation()
	r.began = s.now()
	r.noteAbsent(row)
	err := r.checkKey(ctx)
	return r.isKeyOf(row), err
}

// checkKey looks up some active members before anything is changed, because in another instance, strangers
// may have the addresses that members wait for.
func (r *reconciliation) checkKey(ctx context.Context) error {
	if r.progress.Known != nil {
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
	if err := r.lookUpIDs(ctx, slices.Compact(ids)); err != nil {
		return err
	}
	for _, row := range rows {
		r.noteUser(row)
	}
	return r.askForOurs(ctx)
}

// askForOurs asks Clerk for the oldest user that is missing from the list, and for the newest invitations,
// unless the key is known to be right for that user's member.
func (r *reconciliation) askForOurs(ctx context.Context) error {
	since := r.progress.AbsentSince
	if r.askedForOurs || r.progress.Absent == "" || r.knownSince(since) {
		return nil
	}
	r.askedForOurs = true
	gone, err := r.s.userGone(ctx, r.progress.Absent)
	if err != nil && (ctx.Err() != nil || failureOf(err, "").ofInstance()) {
		return err
	}
	if err == nil && !gone {
		r.progress.Known = &since
		return nil
	}
	known, err := r.s.oldestShown(ctx, false)
	r.progress.Known = earlier(r.progress.Known, known)
	return err
}

// isOurKey reports whether Clerk shows a user or an invitation of this database. With another instance's key it
// does, once somebody was invited there, so this is enough only if an admin has asked for the change.
func (s *Service) isOurKey(ctx context.Context) (bool, error) {
	r := s.newReconciliation()
	r.began = s.now()
	if err := r.checkKey(ctx); err != nil || r.progress.Known != nil {
		return err == nil, err
	}
	return s.showsOurs(ctx)
}

// showsOurs is isOurKey for invitations only.
func (s *Service) showsOurs(ctx context.Context) (bool, error) {
	known, err := s.oldestShown(ctx, true)
	return known != nil, err
}

// oldestShown returns when the oldest member was settled that refers to one of the newest invitations at
// Clerk, or nil. With anyIsEnough it stops at the first page that shows one.
func (s *Service) oldestShown(ctx context.Context, anyIsEnough bool) (known *time.Time, err error) {
	queries := []InvitationQuery{{}, {Status: InvitationRevoked}} // without a status: all except revoked
	if s.cfg.Organizations != nil {
		queries = append(queries, InvitationQuery{AllOrganizations: true}, InvitationQuery{AllOrganizations: true, Status: InvitationRevoked})
	}
	for _, q := range queries {
		q.Limit, q.NewestFirst = listPage, true
		page, err := s.listInvitationPage(ctx, q)
		if err != nil {
			return nil, s.clerkError(ctx, "list invitations", err)
		}
		list, err := s.withMembers(ctx, page)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if list[i].isCurrent() {
				known = earlier(known, list[i].row.settledNotAfter())
			}
		}
		if anyIsEnough && known != nil {
			break
		}
	}
	return known, nil
}

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
	steps := []func(context.Context) error{r.lookUpPending, r.lookUpActive, r.askForOurs}
	if !r.complete { // the later call that reads Clerk's invitations does not have these rows
		steps = append(steps, r.readAdopted, r.expireOverdue)
	}
	return inOrder(ctx, append(steps, r.removeMissing, r.reportMissing, r.removeLeavers)...)
}

// inOrder calls the steps until one fails.
func inOrder(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// member adds a row to its batch, and looks up a full batch.
func (r *reconciliation) member(ctx context.Context, row *Member) error {
	before := r.progress
	r.progress.TenantID, r.progress.ID = row.TenantID, row.ID
	r.report.Members++
	if row.Status == StatusActive {
		r.active.add(row, row.ClerkUserID, before)
		if len(r.active.keys) == findBatch {
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
	if len(r.pending.keys) == findBatch {
		return r.lookUpPending(ctx)
	}
	return nil
}

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
		r.checkedAfterExpiry[row.ID] = !r.wrongKey() // with a wrong key, resolve has changed nothing
		if u := verifiedBy(users, row.Email); u != nil && u.createdBeforeExpiry(row) {
			continue // Clerk's lists show whether this user has accepted
		}
		// Until the key is proven right, keep at most 1,000 in memory. The next reconciliation finds the others.
		if r.progress.Known != nil || len(r.overdue) < reconcilePage {
			r.overdue = append(r.overdue, row)
		}
	}
	r.pending = batch{}
	return r.askForOurs(ctx)
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
		// not change this version of it. A dry run finds it in corrected.
		if !r.changed[row.ID] && !r.hasNewer[row.ID] && !r.unresolved[row.ID] && r.corrected[row.ID] == nil {
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
			if err = r.excuse(ctx, h, r.s.clerkError(ctx, "list invitations", err)); err != nil {
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
		// As in lookUpPending, keep at most 1,000 in memory until the key is proven right.
		if r.noteUser(row) && (r.isKeyOf(row) || len(r.missing) < reconcilePage) {
			r.missing = append(r.missing, row)
		}
	}
	if err := inOrder(ctx, r.askForOurs, r.removeMissing, r.moveMembers, r.noteLeavers, r.removeLeavers); err != nil {
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
	for _, c := range changes {
		if slices.ContainsFunc(found, func(m *Member) bool { return m.Ref() == c.New.Ref() && !m.isSecondAddress() }) {
			r.s.logStaleAddress(ctx, c.Old, whyTaken)
			r.report.OutOfDate = append(r.report.OutOfDate, c.Old)
		} else {
			r.count(StatusActive, c.New)
		}
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
		if !r.isKeyOf(row) {
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
				if err = r.excuse(ctx, h, err); err != nil {
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
	if len(r.missing) == 0 || r.wrongKey() {
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
	for chunk := range slices.Chunk(emails, findBatch) {
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
			if listed[row.ClerkUserID] {
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
			if err = r.excuse(ctx, h, r.s.clerkError(ctx, "find memberships", err)); err != nil {
				return err
			}
			continue
		}
		h.noteResponse()
		if !alone[row.ClerkUserID] {
			changes = append(changes, Change{row, asEnded(*row, StatusRemoved, ReasonLeft, r.s.now())})
		}
	}
	if _, err := r.apply(ctx, changes); err != nil {
		return err
	}
	clear(r.leavers)
	return nil
}

// rowsOf returns the rows of the users and of their verified addresses, with Clerk's times.
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
		rows[i] = cmp.Or(r.corrected[row.ID], row)
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

// dryRun reports whether nothing may be changed. If the key seems wrong, nothing is counted either.
func (r *reconciliation) dryRun() bool { return r.opts.DryRun || r.wrongKey() }

// note logs an error that does not stop the reconciliation, and keeps the first.
func (r *reconciliation) note(ctx context.Context, err error) {
	if err != nil {
		r.firstError = cmp.Or(r.firstError, err)
		r.s.log.LogAttrs(ctx, slog.LevelWarn, "not reconciled", slog.Any("cause", logError(err)))
	}
}

// excuse notes a failure that concerns only one member or user, and returns nil, so that the others are reconciled.
// Otherwise it returns the error.
func (r *reconciliation) excuse(ctx context.Context, h *health, err error) error {
	if ctx.Err() != nil || failureOf(err, "").ofInstance() || !h.excuseFailure(ctx) {
		return err
	}
	r.note(ctx, err)
	return nil
}

// apply writes changes and counts them. In a dry run it only counts them. It returns the indexes of the
// changes whose rows another process changed first. The next reconciliation can make those changes.
func (r *reconciliation) apply(ctx context.Context, changes []Change) (overtaken []int, err error) {
	switch {
	case r.opts.DryRun:
		for _, c := range changes {
			r.count(c.Old.Status, c.New)
		}
		return nil, nil
	case r.wrongKey():
		return nil, nil
	}
	results, err := r.s.applyBounded(ctx, changes)
	if err != nil {
		return nil, err
	}
	for i, result := range results {
		switch {
		case result.Err == nil:
			r.count(changes[i].Old.Status, result.Member)
		case errors.Is(result.Err, ErrConflict), errors.Is(result.Err, ErrUserTaken):
			overtaken = append(overtaken, i)
		default:
			r.unresolved[changes[i].Old.ID] = true
			r.note(ctx, result.Err)
		}
	}
	return overtaken, nil
}

// count counts a member that was changed, once.
func (r *reconciliation) count(from Status, m *Member) {
	if r.changed[m.ID] {
		return
	}
	r.changed[m.ID] = true
	switch {
	case m.Status == StatusActive && from == StatusActive:
		r.report.Moved++
	case m.Status == StatusActive:
		r.report.Activated++
	case m.Status == StatusRemoved:
		r.report.Removed++
	case m.Status == StatusExpired:
		r.report.Expired++
	case m.Status == StatusRevoked:
		r.report.Revoked++
	}
}

// invitations checks Clerk's invitations: the open ones, and ended ones back to the oldest that a member
// waits for.
func (r *reconciliation) invitations(ctx context.Context) error {
	if err := r.listedInvitations(ctx); err != nil {
		return err
	}
	if r.s.cfg.Organizations != nil {
		r.organizations = true
		if err := r.listedInvitations(ctx); err != nil {
			return err
		}
	}
	if r.progress.Oldest == nil {
		return nil
	}
	return inOrder(ctx, r.expireOverdue, r.unlistedInvitations)
}

// listedInvitations checks the invitations into the application or, with r.organizations, into all
// organizations.
func (r *reconciliation) listedInvitations(ctx context.Context) error {
	if err := r.openInvitations(ctx); err != nil || r.progress.Oldest == nil {
		return err
	}
	return inOrder(ctx, r.revokedInvitations, r.acceptedInvitations, r.expiredInvitations)
}

// openInvitations finds left-over invitations and revokes them. It lists Clerk's invitations before it reads
// the rows, so that an invitation cannot be newer than the rows.
func (r *reconciliation) openInvitations(ctx context.Context) error {
	var leftOver []RevokeRequest
	err := r.list(ctx, InvitationPending, time.Time{}, func(list []listed) {
		for _, l := range list {
			switch {
			case !l.marked:
			case l.row == nil:
				r.report.Unknown++ // may belong to another application
			case l.send > l.row.Send:
				r.report.Newer++
				r.hasNewer[l.row.ID] = true
			case l.shared:
			case !keeps(l.row, l.Invitation, l.send), r.opts.DryRun && r.changed[l.row.ID]: // a dry run has not written the change to the row
				leftOver = append(leftOver, RevokeRequest{l.ID, l.Organization})
			}
		}
	})
	if err != nil || r.wrongKey() {
		return err
	}
	// Revoke after listing. A revoked invitation disappears from the list, so the next page would skip
	// another invitation.
	for _, inv := range leftOver {
		if err := r.revokeAndCount(ctx, inv); err != nil {
			return err
		}
	}
	return nil
}

// revokeAndCount revokes a left-over invitation. The error is not nil if the reconciliation must stop.
func (r *reconciliation) revokeAndCount(ctx context.Context, inv RevokeRequest) error {
	if r.opts.DryRun {
		r.report.LeftOver++
		return nil
	}
	err := r.s.revokeLeftOver(ctx, inv)
	var api *APIError
	isAPI := errors.As(err, &api)
	switch {
	case err == nil:
		r.report.LeftOver++
	case ctx.Err() != nil, isAPI && failureOf(err, "").ofInstance():
		return r.s.clerkError(ctx, "revoke invitation", err)
	case isAPI && api.StatusCode/100 == 4: // probably accepted or expired in the meantime
	default:
		r.note(ctx, r.s.clerkError(ctx, "revoke invitation", err))
	}
	return nil
}

// revokedInvitations revokes the members whose invitation was revoked at Clerk.
func (r *reconciliation) revokedInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationRevoked)
	if err != nil {
		return err
	}
	var changes []Change
	for _, row := range rows {
		changes = append(changes, Change{row, asEndedAtClerk(row, InvitationRevoked, r.s.now())})
	}
	_, err = r.apply(ctx, changes)
	return err
}

// acceptedInvitations makes members whose invitation was accepted active, if a user has verified the
// address.
func (r *reconciliation) acceptedInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationAccepted)
	if err != nil {
		return err
	}
	accepted := make(map[string]bool)
	for _, row := range rows {
		accepted[row.InvitationID] = true
	}
	users, err := r.resolve(ctx, emailsOf(rows), accepted)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !r.changed[row.ID] && !r.unreadable[row.Email] && !row.overdue(r.began.Add(-clockSkew)) && verifiedBy(users, row.Email) == nil {
			r.report.AcceptedElsewhere = append(r.report.AcceptedElsewhere, row)
		}
	}
	return nil
}

// expiredInvitations expires the members whose invitation has expired, unless a user has verified the
// address. It looks up only members that were not looked up since the expiry.
func (r *reconciliation) expiredInvitations(ctx context.Context) error {
	rows, err := r.waitingFor(ctx, InvitationExpired)
	if err != nil {
		return err
	}
	unchecked := slices.DeleteFunc(slices.Clone(rows), func(row *Member) bool { return r.checkedAfterExpiry[row.ID] })
	if _, err = r.resolve(ctx, emailsOf(unchecked), nil); err != nil {
		return err
	}
	var changes []Change
	for _, row := range rows {
		if !r.changed[row.ID] && !r.unreadable[row.Email] && !r.unresolved[row.ID] {
			changes = append(changes, Change{row, asEndedAtClerk(row, InvitationExpired, r.s.now())})
		}
	}
	_, err = r.apply(ctx, changes)
	return err
}

// unlistedInvitations activates adopted members whose invitation Clerk does not list, if a user has verified
// the address. Clerk's lists are read before, because the invitation may have ended before the user had it.
func (r *reconciliation) unlistedInvitations(ctx context.Context) error {
	if !r.progress.Oldest.IsZero() {
		return nil // no member has an invitation whose time is unknown
	}
	q := PageQuery{Statuses: []Status{StatusPending}, Limit: reconcilePage}
	for {
		rows, err := r.s.store.Page(ctx, q)
		if err != nil {
			return err
		}
		if _, err := r.resolve(ctx, emailsOf(filter(rows, r.isUnlisted)), nil); err != nil || len(rows) < q.Limit {
			return err
		}
		last := rows[len(rows)-1]
		q.AfterTenantID, q.AfterID = last.TenantID, last.ID
	}
}

// isUnlisted reports whether a pending member's time is still unknown after Clerk's lists were read.
func (r *reconciliation) isUnlisted(row *Member) bool {
	return row.InvitedAt == nil && r.corrected[row.ID] == nil && !row.Due() && !r.changed[row.ID] && !r.hasNewer[row.ID] &&
		!row.overdue(r.began.Add(-clockSkew)) && !row.UpdatedAt.After(r.began) // otherwise adopted after the lists were read
}

// emailsOf returns the distinct addresses of members.
func emailsOf(members []*Member) []string {
	var emails []string
	for _, m := range members {
		emails = append(emails, m.Email)
	}
	slices.Sort(emails)
	return slices.Compact(emails)
}

// waitingFor returns the pending members whose invitation has this final status in Clerk's list.
func (r *reconciliation) waitingFor(ctx context.Context, status string) (members []*Member, err error) {
	err = r.list(ctx, status, *r.progress.Oldest, func(list []listed) {
		for _, l := range list {
			if l.isCurrent() {
				r.noteShown(l.row)
			}
			// A member that is due for a resend belongs to Deliver.
			if l.isCurrent() && l.row.Status == StatusPending && !l.row.Due() && !r.changed[l.row.ID] && !r.hasNewer[l.row.ID] {
				members = append(members, l.row)
			}
		}
	})
	return members, err
}

// list reads Clerk's invitations in a status. It corrects the times in the members' rows and then calls page,
// for each page. If oldest is not zero, it reads the newest first and stops at invitations that are older.
func (r *reconciliation) list(ctx context.Context, status string, oldest time.Time, page func(list []listed)) error {
	q := InvitationQuery{Status: status, Limit: listPage, NewestFirst: !oldest.IsZero(), AllOrganizations: r.organizations}
	var previous []Invitation
	for {
		all, err := r.s.listInvitationPage(ctx, q)
		if err != nil {
			return r.s.clerkError(ctx, "list invitations", err)
		}
		last := len(all) < q.Limit || q.NewestFirst && all[len(all)-1].createdBefore(oldest)
		invitations := withoutRepeated(all, previous)
		if !last && !slices.ContainsFunc(invitations, func(inv Invitation) bool { return inv.ID != "" }) {
			return r.s.clerkError(ctx, "list invitations", errEndlessList)
		}
		r.report.Invitations += len(invitations)
		list, err := r.withTimes(ctx, slices.DeleteFunc(invitations, func(inv Invitation) bool { return inv.ID == "" || inv.Status != status }))
		if err != nil {
			return err
		}
		page(list)
		if last {
			return nil
		}
		previous = all
		q.Offset += q.Limit
	}
}

// listed is an invitation in Clerk's list, and a member that it belongs to, or nil.
type listed struct {
	*Invitation
	row    *Member
	marked bool // the marker identifies a member, which may not exist here
	send   int  // of the marker
	shared bool // a member that the marker does not name waits for it
}

// isCurrent reports whether the row refers to the invitation.
func (l *listed) isCurrent() bool { return l.row != nil && l.row.InvitationID == l.ID }

// withMembers reads the members that invitations belong to: the member that the marker identifies, and the members
// that have adopted the invitation, in any tenant. The result has an entry for each of them, or one without a row
// if there are none.
func (s *Service) withMembers(ctx context.Context, invitations []Invitation) ([]listed, error) {
	var q Query
	for i := range invitations {
		if m, ours := invitations[i].mark(); ours {
			q.IDs = append(q.IDs, m.ID)
		}
		if email, reason := normalizeEmail(invitations[i].Email); reason == "" {
			q.Emails = append(q.Emails, email)
		}
	}
	var rows []*Member
	if len(q.IDs)+len(q.Emails) > 0 {
		var err error
		if rows, err = s.store.Find(ctx, q); err != nil {
			return nil, err
		}
	}
	named, referring := make(map[string]*Member), make(map[string][]*Member) // by ID, and by invitation
	for _, row := range rows {
		named[row.ID] = row
		if row.Status.Waits() && row.InvitationID != "" {
			referring[row.InvitationID] = append(referring[row.InvitationID], row)
		}
	}
	var list []listed
	for i := range invitations {
		inv := &invitations[i]
		m, ours := inv.mark()
		marked := named[m.ID] // nil without a marker, because no row has the ID ""
		adopters := filter(referring[inv.ID], func(row *Member) bool { return row != marked })
		if marked != nil || len(adopters) == 0 {
			list = append(list, listed{Invitation: inv, row: marked, marked: ours, send: m.Send, shared: len(adopters) > 0})
		}
		for _, row := range adopters {
			list = append(list, listed{Invitation: inv, row: row, shared: true})
		}
	}
	return list, nil
}

// withoutRepeated removes duplicates within a page and invitations of the previous page. Pages overlap if an
// invitation is created between the two requests. Invitations without an ID stay.
func withoutRepeated(page, previous []Invitation) []Invitation {
	known := make(map[string]bool)
	for _, inv := range previous {
		known[inv.ID] = true
	}
	var kept []Invitation
	for _, inv := range page {
		if inv.ID == "" || !known[inv.ID] {
			kept = append(kept, inv)
		}
		known[inv.ID] = true
	}
	return kept
}

// createdBefore reports whether Clerk says that the invitation was created before the given time.
func (inv *Invitation) createdBefore(t time.Time) bool {
	return !inv.CreatedAt.IsZero() && inv.CreatedAt.Before(t)
}

// withTimes returns the invitations with their members, after correcting the times in the members' rows.
func (r *reconciliation) withTimes(ctx context.Context, invitations []Invitation) ([]listed, error) {
	list, err := r.s.withMembers(ctx, invitations)
	if err == nil {
		err = r.correctTimes(ctx, list)
	}
	return list, err
}

// correctTimes corrects the rows whose times differ from Clerk's times of their open invitation. Adopted
// members have no times, so they also get the times of ended invitations.
func (r *reconciliation) correctTimes(ctx context.Context, list []listed) error {
	var changes []Change
	var corrected []*listed // of changes
	for i := range list {
		l := &list[i]
		if !l.isCurrent() || l.row.Status != StatusPending || l.row.InvitedAt != nil && l.Status != InvitationPending {
			continue
		}
		row := *l.row
		if l.ExpiresAt != nil {
			row.ExpiresAt = l.ExpiresAt
		}
		if row.InvitedAt == nil && !l.CreatedAt.IsZero() {
			row.InvitedAt = &l.CreatedAt
		}
		next := row.Clone() // rounds the times as a store does
		if !sameTime(next.InvitedAt, l.row.InvitedAt) || !sameTime(next.ExpiresAt, l.row.ExpiresAt) {
			changes, corrected = append(changes, Change{l.row, next}), append(corrected, l)
		}
	}
	if r.dryRun() {
		for i, c := range changes {
			r.corrected[c.Old.ID], corrected[i].row = c.New, c.New
		}
		return nil
	}
	results, err := r.s.applyBounded(ctx, changes)
	if err != nil {
		return err
	}
	for i, result := range results {
		switch {
		case result.Err == nil:
			corrected[i].row = result.Member
		case !errors.Is(result.Err, ErrConflict):
			r.note(ctx, result.Err)
		}
	}
	return nil
}

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }
