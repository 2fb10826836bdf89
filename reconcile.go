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
	Removed   int // now removed: the user was deleted, has left the organization, or has another row in the tenant, under a second address
	Expired   int // now expired
	Revoked   int // now revoked: in Clerk's dashboard
	Moved     int // active members who now have their user's new address

	LeftOver int // open invitations that their member no longer waits for: revoked at Clerk
	Unknown  int // open invitations whose metadata names a member that is not in this database: unchanged
	Newer    int // open invitations newer than their member's row, as after restoring a backup: unchanged
	Missing  int // active members whose user Clerk does not know: unchanged, because the key may be another instance's

	// AcceptedElsewhere contains pending members whose invitation was accepted, although no Clerk user has
	// verified their address. These people have probably signed up under another address.
	AcceptedElsewhere []*Member

	// OutOfDate contains active members whose user no longer has the member's address. They keep it, because
	// the user's primary address is not verified, or another member of the tenant has it.
	OutOfDate []*Member

	Cursor string // "" if everything was checked; otherwise where to continue
}

// Reconcile compares the rows with Clerk, and applies changes that no webhook reported:
//   - A person has joined.
//   - A user was deleted, has left the organization or has another address.
//   - An invitation has expired, or was revoked in the dashboard.
//
// It also revokes open invitations that this library created and no member refers to.
//
// With the secret key of another Clerk instance, all users would seem deleted. So Reconcile needs proof of the
// key before it removes a member whose user was deleted: Clerk must show the user or the invitation of another
// member. That member's [Member].SettledAt must be the same or earlier, because newer members may have joined with
// a wrong key. Without proof, the member stays, and the report counts it as Missing. If there are active members,
// but Clerk shows neither a user nor an invitation of any member, Reconcile changes nothing and returns a
// *[ClerkInvitationError]. If the users were really deleted, use Remove; for organizations, docs/organizations.md
// says what it needs. Members that became active in the last five minutes stay, because Clerk may not show their
// users yet.
// A member who has left an organization stays until Clerk shows another active member's membership.
//
// It makes about one request per 100 pending or active members, one per 100 members of an organization, one
// per 500 invitations, and one per deleted user. After the first 25 requests it makes at most five per
// second, which leaves at least a quarter of Clerk's limit to other callers.
//
// It stops early when its Limit is reached, its context ends, or the store or Clerk fails. The report then
// covers the completed part, and Cursor says where to continue. If it cannot change a member or an
// invitation, it continues with the others, and returns the first such error at the end.
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
	if err == nil && r.keySeemsWrong() {
		err = &ClerkInvitationError{Op: "reconcile", Outcome: OutcomeFault, Err: errWrongKey}
	}
	return r.report, cmp.Or(err, r.firstError)
}

func (s *Service) newReconciliation() *reconciliation {
	return &reconciliation{
		s: s, report: &ReconcileReport{},
		users: make(map[string]*User), unreadable: make(map[string]bool), changed: make(map[string]bool), unwritten: make(map[string]*Member),
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

// reconciliation is one call of Reconcile. Absence from Clerk's lists proves nothing, so Clerk is asked about
// the member again before the member ends.
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
	askedForProof   bool      // Clerk was asked whether it knows one of our invitations
	organizations   bool      // the invitations into organizations are being checked
	firstError      error     // about a member or an invitation that could not be changed

	users              map[string]*User   // the users that were looked up, by ID; nil if Clerk's list leaves one out
	unreadable         map[string]bool    // addresses and user IDs that Clerk fails to look up
	unwritten          map[string]*Member // members with the changes that a dry run does not write
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

// keySeemsWrong reports whether the secret key seems to belong to another instance.
func (r *reconciliation) keySeemsWrong() bool {
	return r.progress.Known == nil && r.progress.Absent != ""
}

// noteShown notes that Clerk has shown the member's user or invitation.
func (r *reconciliation) noteShown(row *Member) {
	r.progress.Known = earlier(r.progress.Known, row.settledNotAfter())
}

// keyProvenFor reports whether the key belongs to the instance where row was settled, because Clerk has shown a
// member that was settled when row was, or earlier. If the key was replaced by another instance's, members invited
// or linked since then are known there. They are newer, so they prove nothing about older members.
func (r *reconciliation) keyProvenFor(row *Member) bool { return r.keyProvenAt(row.settledNotBefore()) }

// keyProvenAt reports whether Clerk has shown a member that was settled by the given time.
func (r *reconciliation) keyProvenAt(t time.Time) bool {
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

// proveKeyFor does Reconcile's check of the secret key for another method that removes members. row is an active
// member whose user Clerk does not show.
func (s *Service) proveKeyFor(ctx context.Context, row *Member) (bool, error) {
	r := s.newReconciliation()
	r.began = s.now()
	r.noteAbsent(row)
	err := r.checkKey(ctx)
	return r.keyProvenFor(row), err
}

// checkKey looks up some active members before anything is changed, because in another instance, strangers
// may have the addresses that members wait for.
func (r *reconciliation) checkKey(ctx context.Context) error {
	if r.progress.Known != nil {
		return nil
	}
	rows, err := r.s.store.Page(ctx, PageQuery{Statuses: []Status{StatusActive}, Limit: lookupSize})
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
	return r.askForProof(ctx)
}

// askForProof asks Clerk for the oldest user that is missing from the list, and for the newest invitations,
// unless the key is known to be right for that user's member.
func (r *reconciliation) askForProof(ctx context.Context) error {
	since := r.progress.AbsentSince
	if r.askedForProof || r.progress.Absent == "" || r.keyProvenAt(since) {
		return nil
	}
	r.askedForProof = true
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

// keySeemsRight reports whether Clerk shows a user or an invitation of this database. With another instance's key
// it does, once a person was invited there, so this is enough only if an admin has asked for the change.
func (s *Service) keySeemsRight(ctx context.Context) (bool, error) {
	r := s.newReconciliation()
	r.began = s.now()
	if err := r.checkKey(ctx); err != nil || r.progress.Known != nil {
		return err == nil, err
	}
	return s.showsOurInvitation(ctx)
}

// showsOurInvitation is keySeemsRight for invitations only.
func (s *Service) showsOurInvitation(ctx context.Context) (bool, error) {
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

// inOrder calls the steps until one fails.
func inOrder(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// dryRun reports whether nothing may be changed. If the key seems wrong, nothing is counted either.
func (r *reconciliation) dryRun() bool { return r.opts.DryRun || r.keySeemsWrong() }

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
			r.unwritten[c.Old.ID] = c.New
			r.count(c.Old.Status, c.New)
		}
		return nil, nil
	case r.keySeemsWrong():
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
