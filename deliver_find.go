package clerkinvite

import (
	"context"
	"slices"
)

// lookupSize is how many addresses or IDs one request for users may contain (Clerk's limit).
const lookupSize = 100

// listPage is how many invitations one page may contain (Clerk's limit).
const listPage = 500

// findAll asks Clerk which users have verified the addresses. It decides for rows with such a user, unless the user
// must be invited into an organization, and for rows whose look-up failed.
func (s *Service) findAll(ctx context.Context, p *pass, attempts []*attempt) {
	if err := s.checkLimit(endpointFindUsers); err != nil {
		for _, a := range attempts {
			a.decide(s.limited("find users", limitIn(err, s.now())))
		}
		return
	}
	var emails []string
	for _, a := range attempts {
		if !slices.Contains(emails, a.row.Email) {
			emails = append(emails, a.row.Email)
		}
	}
	l := s.findByEmail(ctx, emails)
	var holders []*attempt // in organizations
	for _, a := range attempts {
		failure, failed := l.failures[a.row.Email]
		u := verifiedBy(l.users, a.row.Email)
		switch {
		case u != nil && a.organization() != "":
			holders = append(holders, a)
		case u != nil:
			a.decide(userVerdict(u, nil, s.now()))
		case failed:
			a.decide(s.callFailed(ctx, p, a, call{op: "find users", several: failure.several}, failure.err))
		}
	}
	for _, group := range byOrganization(holders) {
		s.decideMembers(ctx, p, group, l.users)
	}
}

// lookupFailure is why the look-up of an address or ID failed.
type lookupFailure struct {
	err     error
	several bool // the failed request was about other addresses or IDs too
}

// lookup finds the users of addresses or IDs. If one address makes a request fail, the request is bisected,
// so that the others still succeed.
type lookup struct {
	s        *Service
	byID     bool // of IDs instead of addresses
	users    []User
	failures map[string]lookupFailure // by address or ID
	health   *health
}

// findByEmail finds the users who have the addresses, in each form in which Clerk may store them.
func (s *Service) findByEmail(ctx context.Context, emails []string) *lookup {
	l := &lookup{s: s, failures: make(map[string]lookupFailure), health: newHealth(s, 0)}
	var forms []string
	for _, email := range emails {
		forms = append(forms, formsOf(email)...)
	}
	for chunk := range slices.Chunk(forms, lookupSize) {
		l.find(ctx, chunk)
	}
	for _, email := range emails {
		l.joinForms(email)
	}
	return l
}

// findByID finds the users with the IDs.
func (s *Service) findByID(ctx context.Context, ids []string) *lookup {
	l := &lookup{s: s, byID: true, failures: make(map[string]lookupFailure), health: newHealth(s, 0)}
	l.find(ctx, ids)
	return l
}

// joinForms decides what a failure for the Unicode form of an address means for the address.
func (l *lookup) joinForms(email string) {
	for _, form := range formsOf(email)[1:] { // the first form is the address itself
		failure, failed := l.failures[form]
		if !failed {
			continue
		}
		delete(l.failures, form)
		if _, already := l.failures[email]; !already && !l.onlyRejectsForm(failure) {
			l.failures[email] = failure
		}
	}
}

// onlyRejectsForm reports whether Clerk accepts other requests and rejects only this form of an address. If
// so, no user can have it.
func (l *lookup) onlyRejectsForm(f lookupFailure) bool {
	return l.health.responded && !f.several && rejectsForm(f.err)
}

// rejectsForm reports whether an error may be about the form of an address.
func rejectsForm(err error) bool {
	return statusOf(err)/100 == 4 && !failureOf(err, "").ofInstance()
}

// findUsersOf is findByEmail for one address.
func (s *Service) findUsersOf(ctx context.Context, email string) ([]User, error) {
	l := s.findByEmail(ctx, []string{email})
	if failure, failed := l.failures[email]; failed && verifiedBy(l.users, email) == nil {
		return nil, failure.err
	}
	return l.users, nil
}

// findJoined is findHolder, but it returns nil for a user who is not a member of the row's organization.
func (s *Service) findJoined(ctx context.Context, row *Member) (*User, *Membership, error) {
	u, m, err := s.findHolder(ctx, row)
	if m == nil && row.organization() != "" {
		return nil, nil, err
	}
	return u, m, err
}

// findHolder returns the user who has verified the row's address, and the user's membership of the row's organization.
// It returns nil for what does not exist or, because Clerk's lists may lag, is not shown yet.
func (s *Service) findHolder(ctx context.Context, row *Member) (*User, *Membership, error) {
	users, err := s.findUsersOf(ctx, row.Email)
	u := verifiedBy(users, row.Email)
	organization := row.organization()
	if err != nil || u == nil || organization == "" {
		return u, nil, err
	}
	members, err := s.findMembers(ctx, organization, []string{u.ID})
	return u, members[u.ID], err
}

// find makes a request about addresses, each in one of its forms, or about IDs, and bisects it if it fails.
func (l *lookup) find(ctx context.Context, keys []string) {
	q := UserQuery{Emails: keys}
	if l.byID {
		q = UserQuery{IDs: keys}
	}
	users, err := l.s.findUsers(ctx, q)
	switch {
	case err == nil:
		l.users = append(l.users, users...)
		l.health.noteResponse()
	case len(keys) > 1 && ctx.Err() == nil && l.worthBisecting(ctx, err):
		l.find(ctx, keys[:len(keys)/2])
		l.find(ctx, keys[len(keys)/2:])
	default:
		several := len(keys) > 1 && (l.byID || severalAddresses(keys))
		for _, key := range keys {
			l.failures[key] = lookupFailure{err, several}
		}
	}
}

// severalAddresses reports whether the list has more than the forms of one address.
func severalAddresses(forms []string) bool {
	first, _ := normalizeEmail(forms[0])
	return slices.ContainsFunc(forms, func(form string) bool { return !sameEmail(form, first) })
}

// worthBisecting reports whether one of several addresses may be to blame for a failed request. It may make a
// request to find out.
func (l *lookup) worthBisecting(ctx context.Context, err error) bool {
	failure := failureOf(err, "")
	return failure == invalidRequest || !failure.ofInstance() && l.health.excuseFailure(ctx)
}

// controlAddress is a harmless address that no firewall should block.
const controlAddress = "clerkinvite@example.com"

// maxExcused is how many failures in a row are excused, which is enough to find one address among eight.
const maxExcused = 3

// health distinguishes failures that concern one address or user from an outage, during which bisecting
// would only multiply the requests. It excuses maxExcused failures after a successful request. Then it looks
// up controlAddress, and if that fails too, Clerk has an outage.
type health struct {
	s         *Service
	responded bool // a request has succeeded
	left      int  // how many more failures are excused before the next look-up of controlAddress
	outage    bool // the look-up of controlAddress has failed
}

// newHealth returns the health before the first request. excused is maxExcused if the caller's earlier requests
// have succeeded, and otherwise 0.
func newHealth(s *Service, excused int) *health { return &health{s: s, left: excused} }

// noteResponse notes that a request has succeeded.
func (h *health) noteResponse() { h.responded, h.left = true, maxExcused }

// excuseFailure counts a failure, and reports whether other requests may follow it. They may not if Clerk has an outage.
func (h *health) excuseFailure(ctx context.Context) bool {
	if h.left == 0 && !h.outage {
		h.checkOutage(ctx)
	}
	if h.outage {
		return false
	}
	h.left--
	return true
}

// checkOutage looks up controlAddress.
func (h *health) checkOutage(ctx context.Context) {
	if _, err := h.s.findUsers(ctx, UserQuery{Emails: []string{controlAddress}}); err != nil {
		h.outage = true
	} else {
		h.noteResponse()
	}
}

// findUsers makes one request. A nil error and no user means that Clerk has none.
func (s *Service) findUsers(ctx context.Context, q UserQuery) ([]User, error) {
	return request(ctx, s, endpointFindUsers, "clerk.FindUsers", func(ctx context.Context) ([]User, error) {
		return s.api.FindUsers(ctx, q)
	})
}

// verifiedBy returns the user who has verified the address, or nil.
func verifiedBy(users []User, email string) *User {
	i := slices.IndexFunc(users, func(u User) bool { return u.hasVerified(email) && clerkID.MatchString(u.ID) })
	if i < 0 {
		return nil
	}
	return &users[i]
}

// look lists the invitations of the address. The verdict is undecided if none of them can be this send's, and none must
// be adopted. Then f has what prepareOrganization and the create need. expectOwn means that the send's invitation may
// exist already. Then look also considers invitations that have ended or do not show their metadata.
func (s *Service) look(ctx context.Context, p *pass, a *attempt, expectOwn bool) (v verdict, f foundInvitations) {
	var list []Invitation
	var err error
	if expectOwn {
		list, err = s.listAll(ctx, a.row)
	} else {
		list, err = s.listInvitations(ctx, a.row, InvitationPending)
	}
	if err != nil {
		return s.callFailed(ctx, p, a, call{op: "list invitations", organization: a.organization() != ""}, err), f
	}
	f, unmarked := sortInvitations(a, list, expectOwn)
	if !a.isResend() { // a resend revokes shared ones too
		if err := s.keepShared(ctx, a.row, &f); err != nil {
			return s.callFailed(ctx, p, a, call{op: "list invitations"}, err), f
		}
	}
	switch {
	case f.own != nil:
		v = s.ownVerdict(ctx, p, a, f.own)
		v.leftOver = f.duplicate
		return v, f
	case f.adoptable != nil:
		s.log.InfoContext(ctx, "open invitation into the organization adopted", "member", *a.row, "invitation", f.adoptable.ID)
		return verdict{kind: isInvited, invitation: f.adoptable, adopted: true}, f
	case len(unmarked) > 0:
		v = s.unmarkedVerdict(ctx, p, a, unmarked)
		f.needsIgnoreExisting = f.needsIgnoreExisting || v.kind == undecided // all unmarked ones are other members'
	}
	return v, f
}

// keepShared makes an older invitation adoptable if another tenant's member waits for it. Then it must not be revoked.
func (s *Service) keepShared(ctx context.Context, row *Member, f *foundInvitations) error {
	for _, inv := range f.older {
		shared, err := s.isShared(ctx, row, inv)
		if err != nil {
			return err
		}
		if shared {
			f.adoptable = inv
		}
	}
	return nil
}

// ownVerdict decides for a row whose invitation an earlier request created.
func (s *Service) ownVerdict(ctx context.Context, p *pass, a *attempt, own *Invitation) verdict {
	switch own.Status {
	case InvitationPending:
		return verdict{kind: isInvited, invitation: own}
	case InvitationAccepted:
		if u, _, err := s.findJoined(ctx, a.row); err == nil && u != nil {
			return userVerdict(u, own, s.now())
		}
		return verdict{kind: isInvited, invitation: own} // Reconcile finds out who accepted it
	case InvitationExpired:
		return verdict{kind: isExpired, invitation: own}
	case InvitationRevoked:
		return verdict{kind: isRevoked, invitation: own}
	}
	return s.callFailed(ctx, p, a, call{op: "list invitations"}, errUnknownStatus)
}

// foundInvitations are the invitations of an address, as they concern one send.
type foundInvitations struct {
	own       *Invitation // has the send's marker
	duplicate bool        // another one has the marker too
	current   *Invitation // the row refers to it; nil if it is not in the list

	// older and adoptable are pending in the member's organization. Clerk allows one pending invitation per address
	// and organization. So the member adopts an adoptable one, and otherwise the older ones are revoked first.
	older     []*Invitation // that the send replaces, except current
	adoptable *Invitation   // any other one, or an older one that another tenant's member needs

	needsIgnoreExisting bool // another invitation for the address is pending
}

// sortInvitations sorts the invitations of the attempt's address. Those in unmarked are pending without metadata, and
// may be this send's.
func sortInvitations(a *attempt, list []Invitation, expectOwn bool) (f foundInvitations, unmarked []*Invitation) {
	for i := range list {
		inv := &list[i]
		isCurrent := inv.ID == a.row.InvitationID
		if isCurrent {
			f.current = inv
		}
		switch m, _ := inv.mark(); {
		case m == mark{a.row.ID, a.row.Send}:
			f.duplicate = f.own != nil
			if f.own == nil || rank(inv) < rank(f.own) {
				f.own = inv
			}
		case inv.Status != InvitationPending:
		case a.organization() == "":
			if expectOwn && a.mayBeOwn(inv) {
				unmarked = append(unmarked, inv)
			} else {
				f.needsIgnoreExisting = true
			}
		case isCurrent: // revokeOlder revokes it
		case a.replaces(inv, m):
			f.older = append(f.older, inv)
		default:
			f.adoptable = inv
		}
	}
	return f, unmarked
}

// replaces reports whether the attempt replaces a pending invitation into its organization: one of the member's earlier
// sends or, if it is a resend, also another tenant's or the dashboard's. A resend must send an email, so it adopts only an
// invitation that it may have created itself.
func (a *attempt) replaces(inv *Invitation, m mark) bool {
	if m.ID == a.row.ID {
		return m.Send < a.row.Send
	}
	return a.isResend() && !a.mayBeOwn(inv)
}

// mayBeOwn reports whether the attempt's send may have created a pending invitation that does not have
// its marker, because Clerk does not show its metadata.
func (a *attempt) mayBeOwn(inv *Invitation) bool {
	if inv.showsMetadata() || inv.ID == a.row.InvitationID {
		return false
	}
	if !a.isRetry() {
		// The send has had no create yet, or one that Clerk has rejected, which probably created nothing. So an invitation
		// counts as the send's only if it is certainly younger: no tolerance for clocks, and an unknown time does not count.
		return inv.CreatedAt.After(a.row.ReservedAt)
	}
	// An earlier attempt may have created it. So only its age can show that it has not.
	return inv.CreatedAt.IsZero() || !inv.CreatedAt.Before(a.row.ReservedAt.Add(-clockSkew))
}

// unmarkedVerdict decides for a send that may have created one of the invitations without metadata. If no
// other member refers to such an invitation, it is this send's or another application's, and using it is
// safer than sending a second email. The first attempt does not use one, because another member's create may
// have succeeded without being saved yet.
func (s *Service) unmarkedVerdict(ctx context.Context, p *pass, a *attempt, unmarked []*Invitation) verdict {
	rows, err := s.store.Find(ctx, Query{Emails: []string{a.row.Email}})
	if err != nil {
		return s.callFailed(ctx, p, a, call{op: "list invitations"}, err)
	}
	free := slices.DeleteFunc(unmarked, func(inv *Invitation) bool {
		return slices.ContainsFunc(rows, func(row *Member) bool { return row.InvitationID == inv.ID })
	})
	switch {
	case len(free) == 0:
		return verdict{}
	case !a.isRetry():
		return s.callFailed(ctx, p, a, call{op: "list invitations"}, errUnmarked)
	}
	s.log.InfoContext(ctx, "invitation without metadata adopted", "member", *a.row, "invitation", free[0].ID)
	return verdict{kind: isInvited, invitation: free[0], adopted: true}
}

// rank orders the invitations of one send: accepted, pending, expired, revoked, unknown.
func rank(inv *Invitation) int {
	known := []InvitationStatus{InvitationAccepted, InvitationPending, InvitationExpired, InvitationRevoked}
	if i := slices.Index(known, inv.Status); i >= 0 {
		return i
	}
	return len(known)
}

// listAll returns the invitations for a row's address, into the application or into its organization, in any
// status.
func (s *Service) listAll(ctx context.Context, row *Member) ([]Invitation, error) {
	list, err := s.listInvitations(ctx, row, "")
	if err != nil {
		return nil, err
	}
	revoked, err := s.listInvitations(ctx, row, InvitationRevoked)
	if err != nil {
		return nil, err
	}
	// An invitation in both lists was revoked between the two requests, or the first list includes revoked ones.
	list = slices.DeleteFunc(list, func(inv Invitation) bool {
		return slices.ContainsFunc(revoked, func(r Invitation) bool { return r.ID == inv.ID })
	})
	return append(list, revoked...), nil
}

// listInvitations returns the invitations for a row's address in one status or, for "", in all, except perhaps
// revoked. It asks for each form of the address. If Clerk rejects one form,
// the other's result is enough.
func (s *Service) listInvitations(ctx context.Context, row *Member, status InvitationStatus) ([]Invitation, error) {
	var all []Invitation
	rejected := false
	forms := formsOf(row.Email)
	for _, form := range forms {
		list, err := s.listForm(ctx, row.Email, InvitationQuery{Query: form, Status: status, Limit: listPage, OrganizationID: row.organization()})
		if err != nil && len(forms) > 1 && !rejected && rejectsForm(err) {
			rejected = true
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, inv := range list {
			if !slices.ContainsFunc(all, func(known Invitation) bool { return known.ID == inv.ID }) {
				all = append(all, inv)
			}
		}
	}
	return all, nil
}

// listForm returns the invitations for an address that a query with one of its forms finds.
func (s *Service) listForm(ctx context.Context, email string, q InvitationQuery) ([]Invitation, error) {
	var all []Invitation
	for last := ""; ; q.Offset += listPage {
		page, err := s.listInvitationPage(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, inv := range page {
			switch {
			case !inv.hasID() && (inv.Email == "" || sameEmail(inv.Email, email)):
				return nil, errNoInvitationID
			case sameEmail(inv.Email, email) && (q.Status == "" || inv.Status == q.Status): // Clerk does not say how it filters
				all = append(all, inv)
			}
		}
		if len(page) < listPage {
			return all, nil
		}
		id := page[len(page)-1].ID
		if q.Offset > 0 && id == last {
			return nil, errEndlessList
		}
		last = id
	}
}

func (s *Service) listInvitationPage(ctx context.Context, q InvitationQuery) ([]Invitation, error) {
	endpoint := applicationEndpoints.list
	if q.OrganizationID != "" || q.AllOrganizations {
		endpoint = organizationEndpoints.list
	}
	list, err := request(ctx, s, endpoint, "clerk.ListInvitations", func(ctx context.Context) ([]Invitation, error) {
		return s.api.ListInvitations(ctx, q)
	})
	if q.AllOrganizations && codeOf(err) == codeNoOrganizations {
		return nil, nil // the instance has none, so it has no invitations into them
	}
	return list, err
}
