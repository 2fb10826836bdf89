package clerkinvitetest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// Clerk's documented limits.
const (
	maxBulk     = 10
	maxMetadata = 8 << 10
	defaultDays = 30
	maxDays     = 365
)

// invitation is an invitation at Clerk.
type invitation struct {
	id        string
	email     string                       // folded
	status    clerkinvite.InvitationStatus // never expired; see statusAt
	url       string
	metadata  json.RawMessage // as returned by object
	createdAt time.Time
	updatedAt time.Time
	expiresAt time.Time
	bulk      bool

	organization    string // "" for the application
	role, inviter   string
	privateMetadata json.RawMessage // a JSON object
}

// invitationRecord is an invitation, and its settled version for Behavior.Lag.
type invitationRecord struct {
	invitation
	settled *invitation
}

func (i *invitation) statusAt(now time.Time) clerkinvite.InvitationStatus {
	if i.status == clerkinvite.InvitationPending && !i.expiresAt.After(now) {
		return clerkinvite.InvitationExpired
	}
	return i.status
}

// shown returns the version that lists show, or nil if none is settled.
func (c *Clerk) shown(r *invitationRecord) *invitation {
	if c.behavior.Lag {
		return r.settled
	}
	return &r.invitation
}

// createParams are the parameters of an invitation.
type createParams struct {
	email, redirectURL, template string
	days                         int
	notify, ignoreExisting       bool
	metadata                     json.RawMessage // as returned by object

	organization, role, inviter string
	privateMetadata             json.RawMessage // as returned by object
}

var emailForm = regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s]+$`)

// check returns Clerk's rejection of invalid parameters, or nil.
func (p createParams) check() *response {
	var a response
	switch {
	case len(p.email) > 255 || !emailForm.MatchString(p.email):
		a = refuseParam("email_address", "form_param_format_invalid", "is invalid", "email_address must be a valid email address.")
	case p.days < 1 || p.days > maxDays:
		a = refuseParam("expires_in_days", "form_param_value_invalid", "is invalid", "expires_in_days must be between 1 and 365.")
	case p.organization == "" && p.template != defaultTemplate && p.template != "waitlist_invitation":
		a = refuseParam("template_slug", "form_param_value_invalid", "is invalid", "template_slug must be one of invitation, waitlist_invitation.")
	case len(p.metadata) > maxMetadata:
		a = refuseParam("public_metadata", "form_param_exceeds_allowed_size", "exceeds allowed size", "public_metadata exceeds the maximum allowed size of 8KB.")
	case !validRedirect(p.redirectURL):
		a = refuseParam("redirect_url", "form_param_format_invalid", "is invalid", "redirect_url must be a valid url.")
	default:
		return nil
	}
	return &a
}

func validRedirect(s string) bool {
	u, err := url.Parse(s)
	return s == "" || err == nil && (u.Scheme != "" && u.Opaque == "" || strings.HasPrefix(s, "/"))
}

// create performs POST /invitations and POST /invitations/bulk.
func (c *Clerk) create(ps []createParams, bulk bool, now time.Time) ([]invitation, *response) {
	if refused := c.checkBulk(len(ps)); refused != nil {
		return nil, refused
	}
	var invalid *response
	var valid []createParams
	var duplicate, held []string
	requested := make(map[string]bool)
	for _, p := range ps {
		email := c.stored(p.email)
		fault := p.check()
		switch {
		case fault != nil:
			invalid = cmp.Or(invalid, fault)
		case !p.ignoreExisting && (requested[email] || len(c.pending("", email, now)) > 0):
			duplicate = append(duplicate, email)
		case (!p.ignoreExisting || bulk && c.behavior.BulkRefusesUsers) && c.claimed(email):
			held = append(held, email)
		default:
			valid = append(valid, p)
			requested[email] = true
		}
	}
	refused := cmp.Or(invalid, c.refuseDuplicate(duplicate), c.refuseHeld(held, bulk))
	if refused != nil && (!bulk || !c.behavior.BulkKeepsPartial) {
		return nil, refused
	}
	return c.addAll(valid, bulk, now), refused
}

// addAll creates valid invitations and sends their emails. It returns them in the order of the response.
func (c *Clerk) addAll(ps []createParams, bulk bool, now time.Time) []invitation {
	created := make([]invitation, 0, len(ps))
	for _, p := range ps {
		if p.ignoreExisting && c.behavior.IgnoreExistingRevokes {
			for _, older := range c.pending("", c.stored(p.email), now) {
				older.set(clerkinvite.InvitationRevoked, now)
			}
		}
		r := c.add(p, bulk, now)
		if p.notify {
			c.send(r, p)
		}
		created = append(created, r.invitation)
	}
	if bulk && c.behavior.BulkShuffles {
		slices.Reverse(created)
	}
	return created
}

// checkBulk returns Clerk's rejection of too many invitations in one request, or nil.
func (c *Clerk) checkBulk(n int) *response {
	if n <= maxBulk {
		return nil
	}
	a := refuse(http.StatusBadRequest, "bulk_size_exceeded", "bulk size exceeded", "The maximum number of invitations of one request is 10.", nil)
	return &a
}

func (c *Clerk) refuseDuplicate(emails []string) *response {
	if len(emails) == 0 {
		return nil
	}
	meta := map[string]any{"email_addresses": emails}
	if c.behavior.NoErrorAddresses {
		meta = nil
	}
	a := refuse(http.StatusBadRequest, "duplicate_record", "duplicate invitation",
		"There are already pending invitations for the following email addresses: "+strings.Join(emails, ", "), meta)
	return &a
}

func (c *Clerk) refuseHeld(emails []string, bulk bool) *response {
	if len(emails) == 0 {
		return nil
	}
	a := refuseParam("email_address", "form_identifier_exists", "already exists", "That email address is taken. Please try another.")
	if bulk && !c.behavior.NoErrorAddresses {
		a.err.Meta["email_addresses"] = emails
	}
	if c.behavior.IdentifierExists400 {
		a.status = http.StatusBadRequest
	}
	return &a
}

func (c *Clerk) add(p createParams, bulk bool, now time.Time) *invitationRecord {
	prefix := "inv"
	if p.organization != "" {
		prefix = "orginv"
	}
	id := c.newID(prefix)
	r := &invitationRecord{invitation: invitation{
		id: id, email: c.stored(p.email), status: clerkinvite.InvitationPending, metadata: p.metadata, bulk: bulk,
		organization: p.organization, role: p.role, inviter: p.inviter, privateMetadata: p.privateMetadata,
		url:       c.link(id),
		createdAt: now, updatedAt: now, expiresAt: now.AddDate(0, 0, p.days),
	}}
	c.invitations = append(c.invitations, r)
	if o := c.organizations[r.organization]; o != nil {
		o.invitations = append(o.invitations, r)
	}
	c.byID[id] = r
	c.byEmail[r.email] = append(c.byEmail[r.email], r)
	return r
}

func (r *invitationRecord) set(status clerkinvite.InvitationStatus, now time.Time) {
	r.status, r.updatedAt = status, now
}

// pending returns the pending invitations of a folded address into an organization, or with ""
// into the application, oldest first.
func (c *Clerk) pending(organization, email string, now time.Time) []*invitationRecord {
	var out []*invitationRecord
	for _, r := range c.byEmail[email] {
		if r.organization == organization && r.statusAt(now) == clerkinvite.InvitationPending {
			out = append(out, r)
		}
	}
	return out
}

// listParams are the parameters of a list of invitations: into the application, or into one or
// all organizations.
type listParams struct {
	status         clerkinvite.InvitationStatus
	query, orderBy string
	limit, offset  int

	organization     string
	allOrganizations bool
}

// selects reports whether i is one of the invitations to list, whatever its status and address.
func (p listParams) selects(i *invitation) bool {
	if p.allOrganizations {
		return i.organization != ""
	}
	return i.organization == p.organization
}

// list returns a page of invitations as the list shows them, and the total number.
func (c *Clerk) list(p listParams, now time.Time) (page []invitation, total int) {
	candidates := c.invitations
	if o := c.organizations[p.organization]; o != nil {
		candidates = o.invitations
	}
	if p.query != "" && !c.behavior.QueryMatchesParts {
		candidates = c.byEmail[fold(p.query)] // other queries can only match an ID
		if r := c.byID[p.query]; r != nil {
			candidates = []*invitationRecord{r}
		}
	}
	var found []*invitation
	for _, r := range candidates {
		i := c.shown(r)
		if i == nil || !p.selects(i) || !c.matches(i, p) {
			continue
		}
		status := i.statusAt(now)
		hidden := status == clerkinvite.InvitationRevoked && (i.organization == "" || !c.behavior.OrganizationListsRevoked)
		if status == p.status || p.status == "" && !hidden {
			found = append(found, i)
		}
	}
	key, descending := strings.CutPrefix(p.orderBy, "-")
	slices.SortStableFunc(found, func(a, b *invitation) int {
		switch strings.TrimPrefix(key, "+") {
		case "email_address":
			return strings.Compare(a.email, b.email)
		case "expires_at":
			return a.expiresAt.Compare(b.expiresAt)
		default:
			return a.createdAt.Compare(b.createdAt)
		}
	})
	if descending {
		slices.Reverse(found)
	}
	for _, i := range cut(found, p.limit, p.offset) {
		shown := *i
		if i.bulk && c.behavior.ListHidesMetadata {
			shown.metadata = json.RawMessage("{}")
		}
		if c.behavior.ListHidesURL {
			shown.url = ""
		}
		page = append(page, shown)
	}
	return page, len(found)
}

// matches reports whether the query of p finds i. Only the query of GET /invitations finds IDs, and
// the one of GET /organizations/{id}/invitations, email_address, finds no parts.
func (c *Clerk) matches(i *invitation, p listParams) bool {
	query := p.query
	if query == "" {
		return true
	}
	if !c.behavior.CaseSensitive {
		query = fold(query)
	}
	byID := i.organization == ""
	if c.behavior.QueryMatchesParts && p.organization == "" {
		return strings.Contains(i.email, query) || byID && strings.Contains(i.id, query)
	}
	return i.email == query || byID && i.id == query
}

// cut returns a page of the list.
func cut[T any](list []T, limit, offset int) []T {
	list = list[min(offset, len(list)):]
	return list[:min(limit, len(list))]
}

// revoke performs POST /invitations/{id}/revoke.
func (c *Clerk) revoke(id string, now time.Time) response {
	r := c.byID[id]
	if r == nil || r.organization != "" {
		return notFound("invitation", id)
	}
	switch r.statusAt(now) {
	case clerkinvite.InvitationPending:
	case clerkinvite.InvitationRevoked:
		return refuse(http.StatusBadRequest, "invitation_already_revoked", "already revoked", "This invitation has already been revoked.", nil)
	case clerkinvite.InvitationAccepted:
		return refuse(http.StatusBadRequest, "invitation_already_accepted", "already accepted", "This invitation has already been accepted. Try signing in instead.", nil)
	case clerkinvite.InvitationExpired:
		switch c.behavior.RevokeExpired {
		case ExpiredIsRefused:
			// Clerk's catalogue has no code for this. No code should rely on this one.
			return refuse(http.StatusBadRequest, "invitation_expired", "expired", "This invitation has expired.", nil)
		case ExpiredIsNotFound:
			return notFound("invitation", id)
		case ExpiredIsRevoked:
		}
	}
	r.set(clerkinvite.InvitationRevoked, now)
	return success(c.wireInvitation(&r.invitation, now))
}

// Invitations returns all invitations of an address, into the application and into
// organizations, oldest first, with their current status. It ignores [Behavior].Lag.
func (c *Clerk) Invitations(email string) []clerkinvite.Invitation {
	return c.invitationsOf(email, func(clerkinvite.InvitationStatus) bool { return true })
}

// OpenInvitations returns the pending invitations of an address, oldest first.
func (c *Clerk) OpenInvitations(email string) []clerkinvite.Invitation {
	return c.invitationsOf(email, func(status clerkinvite.InvitationStatus) bool { return status == clerkinvite.InvitationPending })
}

func (c *Clerk) invitationsOf(email string, want func(status clerkinvite.InvitationStatus) bool) []clerkinvite.Invitation {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	var out []clerkinvite.Invitation
	for _, r := range c.byEmail[c.stored(email)] {
		if want(r.statusAt(now)) {
			out = append(out, c.invitation(&r.invitation, now))
		}
	}
	return out
}

// RevokeInDashboard revokes a pending or expired invitation, as an operator can in Clerk's
// dashboard. Other invitations are unchanged. It panics if there is no such invitation.
func (c *Clerk) RevokeInDashboard(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.known(id); r.status == clerkinvite.InvitationPending {
		c.end(r, c.time())
	}
}

// ExpireNow expires a pending invitation. It panics if there is no such invitation.
func (c *Clerk) ExpireNow(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	if r := c.known(id); r.statusAt(now) == clerkinvite.InvitationPending {
		r.expiresAt = now
	}
}

// CreateForeign adds an invitation of another application on the same instance. Its email
// is not counted. It panics if metadata is not JSON.
func (c *Clerk) CreateForeign(email string, metadata map[string]any) clerkinvite.Invitation {
	p := foreign(email, metadata)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addForeign(p)
}

// foreign returns the parameters of an invitation by another application or an operator.
func foreign(email string, metadata map[string]any) createParams {
	if metadata == nil {
		metadata = map[string]any{}
	}
	b, err := json.Marshal(metadata)
	if err != nil {
		panic("clerkinvitetest: the metadata of the invitation must be JSON")
	}
	b, _ = object(b)
	return createParams{email: email, days: defaultDays, metadata: b, privateMetadata: json.RawMessage("{}")}
}

// addForeign adds an invitation that lists show immediately.
func (c *Clerk) addForeign(p createParams) clerkinvite.Invitation {
	now := c.time()
	r := c.add(p, false, now)
	shown := r.invitation
	r.settled = &shown
	return c.invitation(&r.invitation, now)
}

// known returns an invitation, or panics if it does not exist.
func (c *Clerk) known(id string) *invitationRecord {
	r := c.byID[id]
	if r == nil {
		panic(fmt.Sprintf("clerkinvitetest: there is no invitation %q", id))
	}
	return r
}

// object returns a JSON object in normal form, and whether raw is an object.
func object(raw []byte) (json.RawMessage, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // a float64 would change large numbers
	var o map[string]any
	if !json.Valid(raw) || d.Decode(&o) != nil || o == nil {
		return nil, false
	}
	return encode(o), true
}
