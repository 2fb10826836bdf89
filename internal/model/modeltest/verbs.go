package modeltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// verb is a method of the Service.
type verb string

const (
	invite      verb = "Invite"
	inviteMany  verb = "InviteMany"
	reserve     verb = "Reserve"
	reserveMany verb = "ReserveMany"
	adopt       verb = "Adopt"
	deliver     verb = "Deliver"
	resend      verb = "Resend"
	revoke      verb = "Revoke"
	remove      verb = "Remove"
	purge       verb = "Purge"
	update      verb = "Update"
	list        verb = "List"
	get         verb = "Get"
	history     verb = "History"
	resolve     verb = "Resolve"
	resolveUser verb = "ResolveUser"
	event       verb = "HandleEvent"
	reconcile   verb = "Reconcile"
	dryRun      verb = "Reconcile(dry)"
)

// reads reports whether a verb changes nothing, neither in the store nor at Clerk.
func (v verb) reads() bool { return slices.Contains([]verb{list, get, history, dryRun}, v) }

// action is a verb and how often it is begun.
type action struct {
	verb   verb
	weight int
	run    func(t *task, ctx context.Context)
}

var actions = []action{
	{invite, 30, (*task).doInvite},
	{inviteMany, 8, (*task).doInviteMany},
	{reserve, 4, (*task).doReserve},
	{reserveMany, 2, (*task).doReserveMany},
	{adopt, 5, (*task).doAdopt},
	{deliver, 18, (*task).doDeliver},
	{resend, 12, (*task).doResend},
	{revoke, 7, (*task).doRevoke},
	{remove, 5, (*task).doRemove},
	{purge, 3, (*task).doPurge},
	{update, 2, (*task).doUpdate},
	{list, 2, (*task).doList},
	{get, 1, (*task).doGet},
	{history, 1, (*task).doHistory},
	{resolve, 3, (*task).doResolve},
	{resolveUser, 3, (*task).doResolveUser},
	{event, 16, (*task).doEvent},
	{reconcile, 7, (*task).doReconcile},
	{dryRun, 2, (*task).doDryRun},
}

var totalWeight = func() (sum int) {
	for _, a := range actions {
		sum += a.weight
	}
	return sum
}()

// someone returns a member that may or may not exist.
func (s *sequence) someone() clerkinvite.Ref {
	ref := clerkinvite.Ref{TenantID: pick(s, s.tenants...), Email: pick(s, emails...)}
	if s.chance(2) && len(s.rows) > 0 {
		ref = pick(s, s.rows...).Ref()
	}
	return ref
}

// form returns one of the forms of t.ref: by address, by ID or by Clerk user.
func (t *task) form() clerkinvite.Ref {
	m := byRef(t.rows, t.ref)
	switch {
	case m == nil || t.chance(2):
		return t.ref
	case m.ClerkUserID != "" && t.chance(2):
		return clerkinvite.Ref{TenantID: m.TenantID, ClerkUserID: m.ClerkUserID}
	}
	return clerkinvite.Ref{TenantID: m.TenantID, ID: m.ID}
}

// params returns an invitation, mostly for a few people, so that calls collide.
func (s *sequence) params() clerkinvite.InviteParams {
	p := clerkinvite.InviteParams{TenantID: pick(s, s.tenants...), Email: pick(s, emails...), Role: pick(s, "", "viewer", "editor")}
	p.SkipEmail = p.Email == mailedByHost
	if s.chance(8) {
		p.Email = " " + strings.ToUpper(p.Email) + "\n"
	}
	if s.chance(6) {
		p.ExpiresInDays = 1
	}
	if s.chance(6) {
		p.PublicMetadata = map[string]any{"plan": "pro"}
	}
	if s.chance(6) {
		p.Data = json.RawMessage(`{"seat":4}`)
	}
	if isOrganization(p.TenantID) && !s.chance(3) { // otherwise authorize sets it
		p.Organization = &clerkinvite.Organization{ID: organizationID, Role: pick(s, "", "", "org:admin"), AddExisting: s.chance(3)}
	}
	return p
}

func (s *sequence) manyParams() []clerkinvite.InviteParams {
	ps := make([]clerkinvite.InviteParams, 2+s.rand.IntN(5))
	for i := range ps {
		ps[i] = s.params()
		if s.chance(20) {
			ps[i].Email = "nobody"
		}
	}
	return ps
}

func refOf(p clerkinvite.InviteParams) clerkinvite.Ref {
	return clerkinvite.Ref{TenantID: p.TenantID, Email: strings.ToLower(strings.TrimSpace(p.Email))}
}

// called records that a task begins.
func (t *task) called(about string) { t.sayf("%s %s", t.name, about) }

// returned records what a verb has returned, and checks that its error is a documented
// one, or from the store or the caller's context. It
// reports whether the process is still alive.
func (t *task) returned(m *clerkinvite.Member, err error, documented ...func(error) bool) bool {
	if t.process.dead {
		return false
	}
	t.sayf("%s = %s, %v", t.name, state{m}, outcome{err})
	t.claimsReleased()
	t.committedOnce(m)
	t.documented(err, documented...)
	return true
}

// claimsReleased checks that a call that met no failure leaves no claim.
func (t *task) claimsReleased() {
	if t.failed || t.storeFailed || t.cancelled || t.tooLate {
		return
	}
	for of := range t.claims {
		if row := t.row(of.member); row != nil && row.Send == of.send && t.holders[of] == t && held(row, row.UpdatedAt) {
			t.failf("claim: %s has left its claim on %s", t.name, t.named(row))
		}
	}
}

func (t *task) documented(err error, documented ...func(error) bool) {
	var dup *clerkinvite.DuplicateEmailError
	var clerkErr *clerkinvite.ClerkInvitationError
	switch {
	case err == nil, t.storeFailed && errors.Is(err, errStore), t.cancelled && errors.Is(err, context.Canceled),
		t.tooLate && errors.Is(err, context.DeadlineExceeded):
		return
	case !slices.ContainsFunc(documented, func(is func(error) bool) bool { return is(err) }):
		t.failf("error: %s returns %T: %v", t.name, err, outcome{err})
	case errors.As(err, &dup):
		if dup.Member == nil || dup.Member.TenantID != dup.Ref.TenantID {
			t.failf("error: %s returns a duplicate without its member", t.name)
		}
		t.committedOnce(dup.Member)
	case errors.As(err, &clerkErr):
		if !slices.Contains([]clerkinvite.Outcome{clerkinvite.OutcomeRefused, clerkinvite.OutcomeFault, clerkinvite.OutcomeUncertain}, clerkErr.Outcome) {
			t.failf("error: %s returns the outcome %q", t.name, clerkErr.Outcome)
		}
		t.committedOnce(clerkErr.Member)
	}
}

// committedOnce checks that a returned member equals a state that the store has had.
func (t *task) committedOnce(m *clerkinvite.Member) {
	if m == nil {
		return
	}
	seen := t.committed[version{m.ID, m.Version}]
	if seen == nil {
		t.failf("returned: %s returns version %d of %s, which never existed", t.name, m.Version, t.named(m))
		return
	}
	shown := *m
	shown.URL = seen.URL // the caller gets the link, which is not stored
	if !same(&shown, seen) {
		t.failf("returned: %s returns %s in a state that never existed: %v instead of %v", t.name, t.named(m), state{m}, state{seen})
	}
}

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func as[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

var (
	isDuplicate  = as[*clerkinvite.DuplicateEmailError]
	isClerks     = as[*clerkinvite.ClerkInvitationError]
	isInvalid    = as[*clerkinvite.InvalidParamsError]
	isTransition = as[*clerkinvite.TransitionError]
	isCooldown   = as[*clerkinvite.CooldownError]
	isConflict   = is(clerkinvite.ErrConflict)
	isNotFound   = is(clerkinvite.ErrNotFound)
	isLastAdmin  = is(clerkinvite.ErrLastAdmin)
)

func (t *task) doInvite(ctx context.Context) {
	p := t.params()
	t.ref = refOf(p)
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	there := byRef(t.rows, t.ref)
	m, err := t.process.service.Invite(ctx, p)
	if !t.returned(m, err, isDuplicate, isClerks, isConflict) {
		return
	}
	if err == nil {
		t.invitedOrLinked(t.ref, m)
	}
	// Clerk is not called for a duplicate that existed all the time.
	if there == nil {
		return
	}
	if now := t.row(there.ID); now != nil && there.Version == now.Version && !overdue(now, t.now()) &&
		(there.Status == clerkinvite.StatusPending || there.Status == clerkinvite.StatusActive) && (err == nil || t.requests > 0) {
		t.failf("duplicate: %s of a member who is %s made %d requests and returned %v", t.name, there.Status, t.requests, outcome{err})
	}
}

// invitedOrLinked checks the member of an invitation without an error.
func (t *task) invitedOrLinked(ref clerkinvite.Ref, m *clerkinvite.Member) {
	if m == nil || !t.had(m, ref) || m.Status != clerkinvite.StatusPending && m.Status != clerkinvite.StatusActive {
		t.failf("returned: %s invited and returns %v", t.name, state{m})
	}
}

func (t *task) doInviteMany(ctx context.Context) {
	ps := t.manyParams()
	wait := t.chance(5)
	t.called(fmt.Sprint(len(ps), ", waits: ", wait))
	var last clerkinvite.InviteManyProgress
	results, err := t.process.service.InviteMany(ctx, ps, &clerkinvite.InviteManyOptions{Wait: wait, Progress: func(p clerkinvite.InviteManyProgress) {
		if sum := p.Reserved + p.Invited + p.Linked + p.Failed; p.Total != len(ps) || sum > p.Total || !wait && !p.WaitUntil.IsZero() {
			t.failf("progress: %s says %+v of %d", t.name, p, len(ps))
		}
		last = p
	}})
	if t.returned(nil, err, isClerks, isConflict) {
		t.results(ps, results, err)
		for i, r := range results {
			if r.Err == nil && (r.Member.Ref() != refOf(ps[i]) || r.Member.Status != clerkinvite.StatusReserved || wait && err == nil) {
				t.invitedOrLinked(refOf(ps[i]), r.Member)
			}
		}
		if err == nil && last.Total != len(ps) && slices.ContainsFunc(ps, func(p clerkinvite.InviteParams) bool { return p.Email != "nobody" }) {
			t.failf("progress: %s has ended at %+v", t.name, last)
		}
	}
}

// results checks the results for many inputs.
func (t *task) results(ps []clerkinvite.InviteParams, results []clerkinvite.Result, err error) {
	if len(results) != len(ps) {
		t.failf("returned: %s returns %d results for %d inputs", t.name, len(results), len(ps))
		return
	}
	first := map[clerkinvite.Ref]clerkinvite.Result{}
	for i, r := range results {
		ref := refOf(ps[i])
		t.sayf("    %s/%s: %s, %v", ref.TenantID, ref.Email, state{r.Member}, outcome{r.Err})
		t.committedOnce(r.Member)
		var dup *clerkinvite.DuplicateEmailError
		switch earlier, again := first[ref]; {
		case ref.Email == "nobody":
			if !isInvalid(r.Err) && (err == nil || !errors.Is(r.Err, err)) {
				t.failf("returned: %s accepted an invalid address: %v", t.name, outcome{r.Err})
			}
		case again:
			if !errors.As(r.Err, &dup) && earlier.Err == nil {
				t.failf("returned: %s returns %v for a second %s", t.name, outcome{r.Err}, ref.Email)
			}
			if dup != nil && earlier.Member != nil && dup.Member.ID != earlier.Member.ID {
				t.failf("returned: %s returns another member for a second %s", t.name, ref.Email)
			}
		default:
			first[ref] = r
			if r.Member != nil && !t.had(r.Member, ref) || r.Err == nil && r.Member == nil {
				t.failf("returned: %s returns %v for %s", t.name, state{r.Member}, ref.Email)
			}
			if err == nil || !errors.Is(r.Err, err) {
				t.documented(r.Err, isDuplicate, isClerks, isConflict)
			}
		}
	}
}

func (t *task) doReserve(ctx context.Context) {
	p := t.params()
	t.ref = refOf(p)
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	m, err := t.process.service.Reserve(ctx, p)
	if t.returned(m, err, isDuplicate, isConflict) && err == nil && (m.Ref() != t.ref || m.Status != clerkinvite.StatusReserved) {
		t.failf("returned: %s returns %v", t.name, state{m})
	}
}

func (t *task) doReserveMany(ctx context.Context) {
	ps := t.manyParams()
	t.called(strconv.Itoa(len(ps)))
	results, err := t.process.service.ReserveMany(ctx, ps)
	if t.returned(nil, err, isConflict) {
		t.results(ps, results, err)
	}
}

// doAdopt adopts users under addresses that they have verified, and invitations that have no marker or that
// Clerk does not know.
func (t *task) doAdopt(ctx context.Context) {
	var people []clerkinvite.AdoptParams
	for range 1 + t.rand.IntN(3) {
		p := t.params()
		a := clerkinvite.AdoptParams{InviteParams: p}
		hostsInvitation := t.hostsInvitation
		if isOrganization(p.TenantID) {
			hostsInvitation = t.adminsInvitation
			a.Organization = &clerkinvite.Organization{ID: organizationID} // Adopt does not call authorize
		}
		switch user := t.holder(refOf(p).Email); {
		case user != nil && t.chance(2):
			a.ClerkUserID = user.ID
		case t.chance(2):
			a.ClerkUserID = clerkinvite.PendingID(hostsInvitation(refOf(p).Email))
		default:
			continue
		}
		people = append(people, a)
	}
	t.called(strconv.Itoa(len(people)))
	results, err := t.process.service.Adopt(ctx, people)
	if !t.returned(nil, err, isConflict) {
		return
	}
	if len(results) != len(people) {
		t.failf("returned: %s returns %d results for %d people", t.name, len(results), len(people))
		return
	}
	for i, r := range results {
		t.sayf("    %s/%s: %s, %v", people[i].TenantID, people[i].ClerkUserID, state{r.Member}, outcome{r.Err})
		t.committedOnce(r.Member)
		id, pending := clerkinvite.InvitationID(people[i].ClerkUserID)
		switch {
		case err != nil && errors.Is(r.Err, err):
		case r.Err == nil && (r.Member.Ref() != refOf(people[i].InviteParams) ||
			r.Member.ClerkUserID != people[i].ClerkUserID && (!pending || r.Member.InvitationID != id)):
			t.failf("returned: %s returns %v for %s", t.name, state{r.Member}, people[i].ClerkUserID)
		case errors.Is(r.Err, clerkinvite.ErrUserTaken) && r.Member.ClerkUserID != people[i].ClerkUserID:
			t.failf("returned: %s says that %s has the user %s", t.name, t.named(r.Member), people[i].ClerkUserID)
		default:
			t.documented(r.Err, isDuplicate, is(clerkinvite.ErrUserTaken), isConflict)
		}
	}
	if t.requests > 0 {
		t.failf("adopt: %s calls Clerk", t.name)
	}
}

// hostsInvitation returns the ID of an invitation that the host's older code created for an address. It may be new, it may
// have been accepted or have ended, or Clerk may not know it.
func (t *task) hostsInvitation(email string) string {
	var unmarked []string
	for _, inv := range t.invitations(email) {
		if inv.member == "" && inv.OrganizationID == "" {
			unmarked = append(unmarked, inv.ID)
		}
	}
	switch {
	case t.chance(4):
		t.foreign++
		return fmt.Sprint("inv_unknown", t.foreign)
	case len(unmarked) > 0 && !t.chance(4):
		return pick(t.sequence, unmarked...)
	}
	inv := t.clerk.CreateForeign(email, map[string]any{"app": "the host's older code"})
	t.sayf("the host's older code has invited %s: %s", email, inv.ID)
	if t.chance(4) {
		hook, err := t.clerk.AcceptInvitation(inv.ID)
		t.sayf("%s accepts %s: %v", email, inv.ID, outcome{err})
		if err == nil {
			t.happened(hook)
		}
	}
	t.clerkChanged()
	return inv.ID
}

func (t *task) doDeliver(ctx context.Context) {
	opts := &clerkinvite.DeliverOptions{}
	if t.chance(4) {
		opts.Limit = 1 + t.rand.IntN(2)
	}
	said, most := strconv.Itoa(opts.Limit), opts.Limit
	call := func() (*clerkinvite.DeliverReport, error) { return t.process.service.Deliver(ctx, opts) }
	if t.chance(3) {
		t.ref = t.someone()
		refs := []clerkinvite.Ref{t.form()}
		said, most = t.ref.TenantID+"/"+t.ref.Email, 1
		call = func() (*clerkinvite.DeliverReport, error) { return t.process.service.DeliverMembers(ctx, refs) }
	}
	t.called(said)
	report, err := call()
	if !t.returned(nil, err, isClerks) {
		return
	}
	t.sayf("    %+v", *report)
	if report.Claimed != report.Linked+report.Invited+report.Refused+report.Ended+report.Postponed || most > 0 && report.Claimed > most {
		t.failf("report: %s reports %+v", t.name, *report)
	}
}

func (t *task) doResend(ctx context.Context) {
	t.ref = t.someone()
	if m := byStatus(t.rows, clerkinvite.StatusPending); m != nil && !t.chance(4) {
		t.ref = m.Ref()
	}
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	there := byRef(t.rows, t.ref)
	m, err := t.process.service.Resend(ctx, t.form())
	if !t.returned(m, err, isNotFound, isTransition, isCooldown, isClerks, isConflict, isDuplicate) || err != nil {
		return
	}
	t.invitedOrLinked(t.ref, m)
	if there == nil || m.ID != there.ID || m.Send != there.Send+1 || m.InvitationID == there.InvitationID || t.storeFailed || t.revokeFailed || t.revokeLimited || t.tooLate {
		return
	}
	if there.Sent < there.Send || !t.made[m.InvitationID] { // another call completed that send or this one, and revokes the invitation
		return
	}
	if t.open(there.InvitationID) && !t.waitedFor(t.rows, there.InvitationID) { // two tenants' adopted members can share it
		t.failf("left over: %s has left the row's invitation %s open", t.name, there.InvitationID)
	}
}

func (t *task) doRevoke(ctx context.Context) {
	t.withdraw(ctx, t.process.service.Revoke, clerkinvite.StatusRevoked)
}
func (t *task) doRemove(ctx context.Context) {
	t.withdraw(ctx, t.process.service.Remove, clerkinvite.StatusRemoved)
}

func (t *task) withdraw(ctx context.Context, do func(context.Context, clerkinvite.Ref) (*clerkinvite.Member, error), to clerkinvite.Status) {
	t.ref = t.someone()
	active := slices.DeleteFunc(slices.Clone(t.rows), func(m *clerkinvite.Member) bool { return m.Status != clerkinvite.StatusActive })
	if to == clerkinvite.StatusRemoved && len(active) > 0 && t.chance(2) {
		t.ref = pick(t.sequence, active...).Ref()
	}
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	there := byRef(t.rows, t.ref)
	t.given = t.form()
	m, err := do(ctx, t.given)
	if !t.process.dead && isLastAdmin(err) != t.lastAdmin {
		t.failf("last admin: %s returns %v; Clerk has refused: %v", t.name, outcome{err}, t.lastAdmin)
	}
	if !t.returned(m, err, isNotFound, isTransition, isClerks, isConflict, isLastAdmin) || err != nil {
		return
	}
	if !t.meant(m) || m.Status != to {
		t.failf("returned: %s returns %v", t.name, state{m})
	}
	if t.withdrew {
		t.dead(m, m.Send)
	}
	t.endedMembership(there, m)
}

// meant reports whether a withdrawal named m. During the call, an address or a Clerk user can become another member's.
func (t *task) meant(m *clerkinvite.Member) bool {
	then := byID(t.first, m.ID)
	return then != nil && slices.Contains([]clerkinvite.Ref{
		then.Ref(), {TenantID: then.TenantID, ID: then.ID}, {TenantID: then.TenantID, ClerkUserID: then.ClerkUserID},
	}, t.given)
}

func (t *task) doPurge(ctx context.Context) {
	t.ref = t.someone()
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	there := byRef(t.rows, t.ref)
	err := t.process.service.Purge(ctx, t.form())
	if !t.returned(nil, err, isNotFound, isClerks, isConflict) || err != nil || there == nil {
		return
	}
	if now := t.row(there.ID); now != nil {
		if now.Ref() == there.Ref() { // otherwise it gave the address to the member that was erased
			t.failf("returned: %s has left %s", t.name, t.named(there))
		}
		return
	}
	t.dead(there, 0)
}

// dead checks that a withdrawn member has no open invitation that existed
// when the verb began, of one send or, with 0, of any.
func (t *task) dead(m *clerkinvite.Member, send int) {
	for _, inv := range t.invitations(m.Email) {
		if t.shared && t.waitedFor(t.rows, inv.ID) {
			continue // another tenant's member has adopted it
		}
		since, ours := t.counted[inv.ID]
		if ours && since < t.began && inv.member == m.ID && !t.late[mark{m.ID, inv.send}] && (send == 0 || inv.send == send) && inv.Status == clerkinvite.InvitationPending && !t.behavior.Behavior.Lag {
			t.failf("withdrawn: %s has left %s open", t.name, inv.ID)
		}
	}
}

func (t *task) doUpdate(ctx context.Context) {
	t.ref = t.someone()
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	role, data := pick(t.sequence, "owner", "guest"), json.RawMessage(pick(t.sequence, `{"seat":5}`, `[]`))
	u := clerkinvite.MemberUpdate{Role: &role}
	if t.chance(2) {
		u.Data = &data
	}
	m, err := t.process.service.Update(ctx, t.form(), u)
	if t.returned(m, err, isNotFound, isConflict) && err == nil && (m.Role != role || u.Data != nil && !sameJSON(m.Data, data)) {
		t.failf("returned: %s returns %v", t.name, state{m})
	}
}

func (t *task) doList(ctx context.Context) {
	p := clerkinvite.ListParams{TenantID: pick(t.sequence, t.tenants...), Limit: 1 + t.rand.IntN(3)}
	if t.chance(2) {
		p.Statuses = []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusActive}
	}
	if t.chance(4) {
		p.EmailPrefix = "A"
	}
	p.NewestFirst = t.chance(3)
	t.called(p.TenantID)
	var members []*clerkinvite.Member
	var err error
	if t.chance(2) {
		for m, failure := range t.process.service.All(ctx, p) {
			if err = failure; err == nil {
				members = append(members, m)
			}
		}
	} else {
		for q := p; ; {
			var page *clerkinvite.Page
			if page, err = t.process.service.List(ctx, q); err != nil {
				break
			}
			members = append(members, page.Members...)
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
	}
	if !t.returned(nil, err) {
		return
	}
	ordered := slices.IsSortedFunc(members, func(a, b *clerkinvite.Member) int {
		if p.NewestFirst {
			a, b = b, a
		}
		return strings.Compare(a.ID, b.ID)
	})
	if !ordered {
		t.failf("list: %s lists in another order", t.name)
	}
	listed := map[string]bool{}
	for _, m := range members {
		t.committedOnce(m)
		if listed[m.ID] || !fits(m, p) {
			t.failf("list: %s lists %s twice or wrongly", t.name, t.named(m))
		}
		listed[m.ID] = true
	}
	// It contains every member that existed all the time.
	for _, m := range t.before {
		if now := t.row(m.ID); now != nil && now.Version == m.Version && fits(m, p) && !listed[m.ID] && err == nil {
			t.failf("list: %s does not list %s", t.name, t.named(m))
		}
	}
	if t.requests > 0 {
		t.failf("list: %s calls Clerk", t.name)
	}
}

func fits(m *clerkinvite.Member, p clerkinvite.ListParams) bool {
	return m.TenantID == p.TenantID && (len(p.Statuses) == 0 || slices.Contains(p.Statuses, m.Status)) &&
		strings.HasPrefix(m.Email, strings.ToLower(p.EmailPrefix))
}

func (t *task) doGet(ctx context.Context) {
	t.ref = t.someone()
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	m, err := t.process.service.Get(ctx, t.form())
	if t.returned(m, err, isNotFound) && (err == nil && !t.had(m, t.ref) || t.requests > 0) {
		t.failf("returned: %s returns %v", t.name, state{m})
	}
}

// had reports whether m has or had the address of ref: a verb continues with the member that it read first.
func (s *sequence) had(m *clerkinvite.Member, ref clerkinvite.Ref) bool {
	for n := m.Version; n > 0; n-- {
		if seen := s.committed[version{m.ID, n}]; seen != nil && seen.Ref() == ref {
			return true
		}
	}
	return m.Ref() == ref
}

func (t *task) doHistory(ctx context.Context) {
	t.ref = t.someone()
	t.called(t.ref.TenantID + "/" + t.ref.Email)
	there := byRef(t.rows, t.ref)
	moves, err := t.process.service.History(ctx, t.form())
	if !t.returned(nil, err, isNotFound) || err != nil || there == nil || t.row(there.ID) == nil {
		return
	}
	if len(moves) == 0 || moves[0].From != "" || len(moves) > len(t.chains[there.ID]) {
		t.failf("history: %s returns %+v", t.name, moves)
	}
}

// changed checks the members that a verb reports as changed.
func (t *task) changed(members []*clerkinvite.Member, err error) {
	if !t.returned(nil, err, isNotFound, isClerks, isConflict) {
		return
	}
	for _, m := range members {
		t.sayf("    %s", state{m})
		t.committedOnce(m)
		ended := t.verb == event && inOrganization(m) && (m.Status == clerkinvite.StatusRevoked || m.Status == clerkinvite.StatusExpired)
		if m.Status != clerkinvite.StatusActive && m.Status != clerkinvite.StatusRemoved && !ended {
			t.failf("returned: %s returns %v", t.name, state{m})
		}
	}
}

func (t *task) doResolve(ctx context.Context) {
	people := t.people()
	if len(people) == 0 {
		return
	}
	u := pick(t.sequence, people...).User
	t.called(u.ID)
	members, err := t.process.service.Resolve(ctx, u)
	t.changed(members, err)
	if t.requests > 0 {
		t.failf("requests: %s calls Clerk", t.name)
	}
}

func (t *task) doResolveUser(ctx context.Context) {
	if len(t.order) == 0 {
		return
	}
	id := pick(t.sequence, t.order...)
	t.called(id)
	members, err := t.process.service.ResolveUser(ctx, id)
	t.changed(members, err)
}

func (t *task) doEvent(ctx context.Context) {
	if len(t.events) == 0 {
		return
	}
	e := t.events[len(t.events)-1]
	if t.chance(2) { // late, again, or out of order
		e = pick(t.sequence, t.events...)
	}
	if t.chance(8) && e.User != nil { // the event is wrong
		u := *e.User
		u.Emails = append(slices.Clone(u.Emails), clerkinvite.UserEmail{ID: "idn_9", Address: pick(t.sequence, emails...)})
		for i := range u.Emails {
			u.Emails[i].Verified = true
		}
		u.Banned = false
		e.User = &u
	}
	t.called(e.ID + " " + e.Type + " " + e.UserID)
	members, err := t.process.service.HandleEvent(ctx, &e)
	t.quiet(e)
	if errors.Is(err, clerkinvite.ErrUnconfirmed) {
		if t.now().Sub(e.Timestamp) >= 2*time.Minute {
			t.failf("event: %s asks for a retry of an old event", t.name)
		}
		err = nil
	}
	t.changed(members, err)
}

func (t *task) doReconcile(ctx context.Context) {
	opts := &clerkinvite.ReconcileOptions{}
	if t.chance(3) {
		opts.Limit, opts.Cursor = 1+t.rand.IntN(3), t.cursor
	}
	t.called("")
	report, err := t.process.service.Reconcile(ctx, opts)
	if !t.returned(nil, err, isClerks) {
		return
	}
	t.sayf("    %v", report.LogValue())
	t.cursor = report.Cursor
	if opts.Limit > 0 && report.Members > opts.Limit || opts.Limit == 0 && err == nil && report.Cursor != "" {
		t.failf("report: %s reports %+v", t.name, *report)
	}
}

func (t *task) doDryRun(ctx context.Context) {
	t.called("")
	report, err := t.process.service.Reconcile(ctx, &clerkinvite.ReconcileOptions{DryRun: true})
	if t.returned(nil, err, isClerks) {
		t.sayf("    %v", report.LogValue())
	}
}

func number(n int) string { return strconv.Itoa(n) }
