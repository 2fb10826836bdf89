package clerkinvitetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// UserSpec describes a user to add.
type UserSpec struct {
	ID        string // generated if empty
	Emails    []EmailSpec
	Primary   int // index of the primary address, -1 for none
	Banned    bool
	CreatedAt time.Time // now if zero
}

// EmailSpec describes an address of a user. By default it is unverified.
type EmailSpec struct {
	Address          string
	Verified         bool
	Reserved         bool // reserved for the user, but not usable
	NullVerification bool // without a verification object, whatever Verified is
}

// verified reports whether Clerk considers the address proven.
func (e EmailSpec) verified() bool { return e.Verified && !e.NullVerification }

// user is a user at Clerk.
type user struct {
	id        string
	emails    []userEmail
	primary   string // id of the address
	account   account
	deleted   bool
	metadata  json.RawMessage // public, a JSON object
	createdAt time.Time
	updatedAt time.Time
}

type userEmail struct {
	EmailSpec
	id        string
	ticket    bool // verified by the link of an invitation
	createdAt time.Time
}

// account is what keeps a user from signing in.
type account struct {
	banned, deprovisioned, locked bool
	unlockedAt                    time.Time // when a lock ends; zero if it does not end
}

// lockedAt reports whether the user is locked at the given time.
func (a account) lockedAt(now time.Time) bool {
	return a.locked && (a.unlockedAt.IsZero() || a.unlockedAt.After(now))
}

// barred returns why the user cannot sign in, or "".
func (a account) barred(now time.Time) string {
	switch {
	case a.banned:
		return "banned"
	case a.deprovisioned:
		return "deprovisioned"
	case a.lockedAt(now):
		return "locked"
	}
	return ""
}

// userRecord is a user, and the settled version for Behavior.Lag and GetUserLags.
type userRecord struct {
	user
	settled *user
}

func (u *user) clone() user {
	c := *u
	c.emails = slices.Clone(u.emails)
	return c
}

// email returns the entry of a folded address, or nil.
func (u *user) email(folded string) *userEmail {
	for i := range u.emails {
		if fold(u.emails[i].Address) == folded {
			return &u.emails[i]
		}
	}
	return nil
}

// AddUser adds a user without an event, as if they had signed up before the test. It panics
// if the ID exists or Primary is not an index of Emails.
func (c *Clerk) AddUser(spec UserSpec) clerkinvite.User {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.addUser(spec, c.time())
	shown := r.clone()
	r.settled = &shown
	return r.wire(c.time()).user()
}

// AddVerifiedUser adds a user with one verified address.
func (c *Clerk) AddVerifiedUser(email string) clerkinvite.User {
	return c.AddUser(UserSpec{Emails: []EmailSpec{{Address: email, Verified: true}}})
}

func (c *Clerk) addUser(spec UserSpec, now time.Time) *userRecord {
	if spec.Primary < -1 || spec.Primary >= max(len(spec.Emails), 1) {
		panic("clerkinvitetest: UserSpec.Primary must be an index of Emails, or -1")
	}
	if spec.ID != "" && c.userByID[spec.ID] != nil {
		panic(fmt.Sprintf("clerkinvitetest: user %q already exists", spec.ID))
	}
	for spec.ID == "" || c.userByID[spec.ID] != nil {
		spec.ID = c.newID("user")
	}
	if spec.CreatedAt.IsZero() {
		spec.CreatedAt = now
	}
	created := spec.CreatedAt.UTC().Truncate(time.Millisecond)
	r := &userRecord{user: user{id: spec.ID, account: account{banned: spec.Banned}, metadata: json.RawMessage("{}"), createdAt: created, updatedAt: created}}
	c.users = append(c.users, r)
	c.userByID[r.id] = r
	for i, e := range spec.Emails {
		id := c.addEmail(r, e, created)
		if i == spec.Primary {
			r.primary = id
		}
	}
	return r
}

func (c *Clerk) addEmail(r *userRecord, e EmailSpec, now time.Time) (id string) {
	id = c.newID("idn")
	if c.behavior.UnicodeDomains || c.behavior.ASCIIDomains {
		e.Address = c.stored(e.Address)
	}
	r.emails = append(r.emails, userEmail{EmailSpec: e, id: id, createdAt: now})
	key := fold(e.Address)
	if !slices.Contains(c.userByEmail[key], r) {
		c.userByEmail[key] = append(c.userByEmail[key], r)
	}
	return id
}

// holders returns the users who have a folded address, in any state.
func (c *Clerk) holders(email string) []*userRecord {
	var out []*userRecord
	for _, r := range c.userByEmail[email] {
		if !r.deleted && r.email(email) != nil {
			out = append(out, r)
		}
	}
	return out
}

// claimed reports whether the address belongs to a user and cannot be invited. Verified and
// reserved addresses belong to a user, others do not.
func (c *Clerk) claimed(email string) bool {
	return slices.ContainsFunc(c.holders(email), func(r *userRecord) bool {
		e := r.email(email)
		return e.verified() || e.Reserved || c.behavior.UnverifiedBlocks
	})
}

// userParams are the parameters of GET /users.
type userParams struct {
	emails, ids   []string
	orderBy       string
	limit, offset int
}

// findUsers performs GET /users. It returns a page and the total number.
func (c *Clerk) findUsers(p userParams) (page []wireUser, total int) {
	candidates := c.users
	if len(p.emails) > 0 {
		candidates = nil
		for _, email := range p.emails {
			for _, r := range c.userByEmail[fold(email)] {
				if !slices.Contains(candidates, r) {
					candidates = append(candidates, r)
				}
			}
		}
	}
	var found []*user
	for _, r := range candidates {
		u := &r.user
		if c.behavior.Lag {
			u = r.settled
		}
		if u == nil || u.deleted || len(p.ids) > 0 && !slices.Contains(p.ids, u.id) {
			continue
		}
		if len(p.emails) > 0 && !slices.ContainsFunc(u.emails, func(e userEmail) bool { return c.finds(p.emails, e) }) {
			continue
		}
		found = append(found, u)
	}
	slices.SortStableFunc(found, func(a, b *user) int { return a.createdAt.Compare(b.createdAt) })
	if c.behavior.ListOmitsUser && len(p.ids) > 0 && len(found) > 0 {
		found = found[1:]
	}
	if strings.HasPrefix(p.orderBy, "-") {
		slices.Reverse(found)
	}
	page = []wireUser{}
	for _, u := range cut(found, p.limit, p.offset) {
		page = append(page, u.wire(c.time()))
	}
	return page, len(found)
}

// finds reports whether a look-up of the addresses finds a user by e.
func (c *Clerk) finds(emails []string, e userEmail) bool {
	if c.behavior.HideUnverified && !e.verified() {
		return false
	}
	return slices.ContainsFunc(emails, func(s string) bool {
		return s == e.Address || !c.behavior.CaseSensitive && fold(s) == fold(e.Address)
	})
}

// getUser performs GET /users/{id}.
func (c *Clerk) getUser(id string) response {
	r := c.userByID[id]
	if r == nil {
		return notFound("user", id)
	}
	u := &r.user
	if c.behavior.GetUserLags {
		u = r.settled
	}
	if u == nil || u.deleted {
		return notFound("user", id)
	}
	return success(u.wire(c.time()))
}

// Accept follows the link of the newest pending invitation for the address, and returns the
// webhook. If a user has the address, verified or not, that user signs in, the address
// becomes verified, and the event is user.updated. Otherwise a user with the verified
// address and the invitation's metadata signs up, and the event is user.created.
//
// The user of an invitation into an organization becomes a member there, and the membership gets
// the metadata. [Clerk.OrganizationEvents] has the organization's events.
//
// It returns an error if the address has no pending invitation, or its user is banned,
// deprovisioned or locked.
func (c *Clerk) Accept(email string) (Webhook, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	inv, err := c.newestPending(email, now)
	if err != nil {
		return Webhook{}, err
	}
	return c.accept(inv, inv.email, now)
}

// AcceptAs is like Accept, but the person signs up or signs in with another address, such as a private
// Google account. The invitation is accepted, but no user gets its address. Errors: the same as Accept.
func (c *Clerk) AcceptAs(email, other string) (Webhook, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	inv, err := c.newestPending(email, now)
	if err != nil {
		return Webhook{}, err
	}
	return c.accept(inv, c.stored(other), now)
}

func (c *Clerk) newestPending(email string, now time.Time) (*invitationRecord, error) {
	for _, r := range slices.Backward(c.byEmail[c.stored(email)]) {
		if r.statusAt(now) == clerkinvite.InvitationPending {
			return r, nil
		}
	}
	return nil, errors.New("clerkinvitetest: the address has no pending invitation")
}

// AcceptInvitation is like Accept, for the invitation with the ID. It returns an error if the
// invitation does not exist or is not pending, or its user is banned, deprovisioned or locked.
func (c *Clerk) AcceptInvitation(id string) (Webhook, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	r, err := c.pendingByID(id, now)
	if err != nil {
		return Webhook{}, err
	}
	return c.accept(r, r.email, now)
}

func (c *Clerk) pendingByID(id string, now time.Time) (*invitationRecord, error) {
	r := c.byID[id]
	if r == nil {
		return nil, fmt.Errorf("clerkinvitetest: there is no invitation %q", id)
	}
	if status := r.statusAt(now); status != clerkinvite.InvitationPending {
		return nil, fmt.Errorf("clerkinvitetest: invitation %s is %s", id, status)
	}
	return r, nil
}

// accept accepts the invitation as the person with the address, which may differ from the
// invitation's.
func (c *Clerk) accept(inv *invitationRecord, email string, now time.Time) (Webhook, error) {
	holder := c.holder(email)
	if holder != nil {
		if reason := holder.account.barred(now); reason != "" {
			return Webhook{}, fmt.Errorf("clerkinvitetest: user %s is %s and cannot sign in", holder.id, reason)
		}
	}
	event := "user.updated"
	if holder == nil {
		event = "user.created"
		holder = c.addUser(UserSpec{Emails: []EmailSpec{{Address: email}}}, now)
	}
	inv.set(clerkinvite.InvitationAccepted, now)
	c.verify(holder, email, true, now)
	if inv.organization != "" {
		c.joinBy(inv, holder, now)
	} else if !inv.bulk || !c.behavior.BulkLosesMetadata {
		holder.metadata = merge(holder.metadata, inv.metadata)
	}
	return c.event(event, holder.wire(now), now), nil
}

// holder returns the user that a person with this address signs in as, or nil: a user who
// has verified it, otherwise the first user who has it.
func (c *Clerk) holder(email string) *userRecord {
	holders := c.holders(email)
	for _, r := range holders {
		if r.email(email).verified() {
			return r
		}
	}
	if len(holders) > 0 {
		return holders[0]
	}
	return nil
}

// verify makes an address of r verified.
func (c *Clerk) verify(r *userRecord, email string, ticket bool, now time.Time) {
	if e := r.email(email); !e.verified() {
		e.Verified, e.Reserved, e.NullVerification, e.ticket = true, false, false, ticket
	}
	r.updatedAt = now
	if c.behavior.SignUpAccepts {
		for _, inv := range c.pending("", email, now) {
			inv.set(clerkinvite.InvitationAccepted, now)
		}
	}
}

// merge returns the keys of both objects. For common keys, newer wins.
func merge(older, newer json.RawMessage) json.RawMessage {
	all := make(map[string]json.RawMessage)
	for _, raw := range []json.RawMessage{older, newer} {
		if err := json.Unmarshal(raw, &all); err != nil {
			panic("clerkinvitetest: metadata is not a JSON object") // it was checked before
		}
	}
	return encode(all)
}

// SignUp signs up a person without an invitation's link, and returns user.created. If a user
// has already verified the address, that user signs in, and SignUp returns user.updated.
func (c *Clerk) SignUp(email string, verified bool) Webhook {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	if r := c.holder(c.stored(email)); r != nil && r.email(c.stored(email)).verified() {
		r.updatedAt = now
		return c.event("user.updated", r.wire(now), now)
	}
	r := c.addUser(UserSpec{Emails: []EmailSpec{{Address: email}}}, now)
	if verified {
		c.verify(r, c.stored(email), false, now)
	}
	return c.event("user.created", r.wire(now), now)
}

// AddEmail adds an address to a user and returns user.updated. It panics if there is no such
// user.
func (c *Clerk) AddEmail(userID string, e EmailSpec) Webhook {
	return c.updateUser(userID, func(r *userRecord, now time.Time) { c.addEmail(r, e, now) })
}

// VerifyEmail verifies an address of a user and returns user.updated. It panics if there is
// no such user or address.
func (c *Clerk) VerifyEmail(userID, email string) Webhook {
	return c.updateUser(userID, func(r *userRecord, now time.Time) {
		if r.email(c.stored(email)) == nil {
			panic("clerkinvitetest: VerifyEmail: the user does not have the address")
		}
		c.verify(r, c.stored(email), false, now)
	})
}

// SetPrimaryEmail makes an address of a user the primary one and returns user.updated. It panics if
// there is no such user or address.
func (c *Clerk) SetPrimaryEmail(userID, email string) Webhook {
	return c.updateUser(userID, func(r *userRecord, _ time.Time) {
		e := r.email(c.stored(email))
		if e == nil {
			panic("clerkinvitetest: SetPrimaryEmail: the user does not have the address")
		}
		r.primary = e.id
	})
}

// RemoveEmail removes an address from a user and returns user.updated. A user whose primary address
// is removed has none. It panics if there is no such user or address.
func (c *Clerk) RemoveEmail(userID, email string) Webhook {
	return c.updateUser(userID, func(r *userRecord, _ time.Time) {
		if r.email(c.stored(email)) == nil {
			panic("clerkinvitetest: RemoveEmail: the user does not have the address")
		}
		r.removeEmail(r.email(c.stored(email)).id)
	})
}

// ChangeEmail gives a user a new verified primary address instead of the old one, and returns
// user.updated. It panics if there is no such user.
func (c *Clerk) ChangeEmail(userID, email string) Webhook {
	return c.updateUser(userID, func(r *userRecord, now time.Time) {
		old := r.primary
		if r.email(c.stored(email)) == nil {
			c.addEmail(r, EmailSpec{Address: email}, now)
		}
		c.verify(r, c.stored(email), false, now)
		r.primary = r.email(c.stored(email)).id
		if old != r.primary {
			r.removeEmail(old)
		}
	})
}

// removeEmail removes the address with the ID.
func (u *user) removeEmail(id string) {
	u.emails = slices.DeleteFunc(u.emails, func(e userEmail) bool { return e.id == id })
	if u.primary == id {
		u.primary = ""
	}
}

// BanUser bans a user and returns user.updated. It panics if there is no such user.
func (c *Clerk) BanUser(userID string) Webhook {
	return c.updateUser(userID, func(r *userRecord, _ time.Time) { r.account.banned = true })
}

// DeprovisionUser deprovisions a user, as a directory does when a person leaves, and returns
// user.updated. It panics if there is no such user.
func (c *Clerk) DeprovisionUser(userID string) Webhook {
	return c.updateUser(userID, func(r *userRecord, _ time.Time) { r.account.deprovisioned = true })
}

// LockUser locks a user for d, or until UnlockUser if d is 0, and returns user.updated. It panics
// if there is no such user.
func (c *Clerk) LockUser(userID string, d time.Duration) Webhook {
	return c.updateUser(userID, func(r *userRecord, now time.Time) {
		r.account.locked, r.account.unlockedAt = true, time.Time{}
		if d > 0 {
			r.account.unlockedAt = now.Add(d)
		}
	})
}

// UnlockUser ends the lock of a user, and returns user.updated. It panics if there is no such user.
func (c *Clerk) UnlockUser(userID string) Webhook {
	return c.updateUser(userID, func(r *userRecord, _ time.Time) { r.account.locked = false })
}

// UserUpdated returns the event user.updated for a user. It panics if there is no such user.
func (c *Clerk) UserUpdated(userID string) Webhook {
	return c.updateUser(userID, func(*userRecord, time.Time) {})
}

func (c *Clerk) updateUser(userID string, change func(r *userRecord, now time.Time)) Webhook {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	r := c.knownUser(userID)
	change(r, now)
	r.updatedAt = now
	return c.event("user.updated", r.wire(now), now)
}

// UserCreated returns the event user.created for a user. It panics if there is no such user.
func (c *Clerk) UserCreated(userID string) Webhook {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.time()
	return c.event("user.created", c.knownUser(userID).wire(now), now)
}

// DeleteUser deletes a user with all memberships and returns user.deleted. It panics if there is no
// such user.
func (c *Clerk) DeleteUser(userID string) Webhook {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.knownUser(userID)
	r.deleted = true
	c.endMemberships(r)
	return c.event("user.deleted", map[string]any{"object": "user", "id": userID, "deleted": true}, c.time())
}

// knownUser returns a user, or panics if it does not exist.
func (c *Clerk) knownUser(id string) *userRecord {
	r := c.userByID[id]
	if r == nil || r.deleted {
		panic(fmt.Sprintf("clerkinvitetest: there is no user %q", id))
	}
	return r
}
