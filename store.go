package clerkinvite

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Ref identifies one member of a tenant by exactly one of Email, ID and ClerkUserID. It never finds a
// member of another tenant.
type Ref struct {
	TenantID string // the host's ID of its customer, 1 to 255 bytes
	Email    string // need not be normalised
	ID       string // Member.ID, a UUID

	// ClerkUserID is the current Member.ClerkUserID: the user ID of an active member, or "pending_"
	// and the invitation's ID of a pending member. A pending ID stops working after a resend and when
	// the person joins. Members in other states have no ClerkUserID, so a second Remove by
	// ClerkUserID returns ErrNotFound.
	ClerkUserID string
}

// Member is one person in one tenant. It is a copy of the stored row; changing it does not
// change the store. slog and %v print it without personal data, see [Member.LogValue]. %+v
// and encoding/json include the address, but never the URL. JSON omits Params, so a member that
// was decoded from JSON has no Organization.
type Member struct {
	ID       string `json:"id"` // UUID version 7
	TenantID string `json:"tenant_id"`
	Email    string `json:"email"` // normalised
	Status   Status `json:"status"`

	// ClerkUserID is "pending_" + InvitationID while pending, the Clerk user's ID
	// while active, and empty in every other state. See [IsPending].
	ClerkUserID  string `json:"clerk_user_id,omitempty"`
	InvitationID string `json:"invitation_id,omitempty"` // the current or last invitation at Clerk

	// URL is the invitation's link. Anyone who has it can accept the invitation. It is
	// returned to the caller of Invite. It is stored only for invitations that the host
	// sends itself (SkipEmail), until the member leaves the state pending.
	URL Secret `json:"-"`

	Role      string          `json:"role,omitempty"`
	InvitedBy string          `json:"invited_by,omitempty"`
	ChangedBy string          `json:"changed_by,omitempty"` // actor of the last recorded change, see [WithActor]
	Data      json.RawMessage `json:"data,omitempty"`       // the host's data; nil or a JSON value

	// Params contains the invitation's parameters in the library's encoding. A Store keeps
	// it byte for byte.
	Params json.RawMessage `json:"-"`

	Send     int    `json:"send"`             // number of the requested invitation; 1 is the first
	Sent     int    `json:"sent"`             // number of the last invitation that was completed; see Due
	Bulk     bool   `json:"bulk"`             // Send was requested by InviteMany or ReserveMany; see DueQuery
	Attempts int    `json:"attempts"`         // attempts to deliver Send with these Params, including the current one; a rate limit takes its attempt back
	Reason   string `json:"reason,omitempty"` // why the member is in its state, for people: a code from Clerk or one of the Reason constants
	Version  int64  `json:"version"`          // increases by one with every change; compare-and-swap compares it

	ReservedAt    time.Time  `json:"reserved_at"`               // when Send was requested
	InvitedAt     *time.Time `json:"invited_at,omitempty"`      // created_at of the invitation, by Clerk's clock
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`      // expires_at of the invitation, by Clerk's clock
	SettledAt     *time.Time `json:"settled_at,omitempty"`      // when the member was last invited, became active or ended, or a new invitation was withdrawn
	ClaimedUntil  *time.Time `json:"claimed_until,omitempty"`   // until then one delivery attempt owns the row; a past time means that Clerk may have an invitation, or a membership, that the row does not refer to
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"` // time of the next delivery attempt; nil if the member is not due
	UpdatedAt     time.Time  `json:"updated_at"`
}

// Clone returns a deep copy of m in the form in which a Store returns members: the ID in
// lower case, times in UTC with microseconds, and nil for empty JSON. It returns nil for nil.
func (m *Member) Clone() *Member {
	if m == nil {
		return nil
	}
	c := *m
	c.ID = strings.ToLower(m.ID)
	for _, raw := range []*json.RawMessage{&c.Data, &c.Params} {
		*raw = append(json.RawMessage(nil), *raw...)
	}
	c.ReservedAt, c.UpdatedAt = storedTime(m.ReservedAt), storedTime(m.UpdatedAt)
	for _, t := range []**time.Time{&c.InvitedAt, &c.ExpiresAt, &c.SettledAt, &c.ClaimedUntil, &c.NextAttemptAt} {
		if *t != nil {
			at := storedTime(**t)
			*t = &at
		}
	}
	return &c
}

func storedTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }

// Ref returns the tenant and address of m.
func (m Member) Ref() Ref { return Ref{TenantID: m.TenantID, Email: m.Email} }

// refByID returns the tenant and ID of m, which never change.
func (m Member) refByID() Ref { return Ref{TenantID: m.TenantID, ID: m.ID} }

// Due reports whether m waits for delivery, now or later: it is reserved or pending, and Sent < Send.
// The next delivery attempt is at NextAttemptAt.
func (m Member) Due() bool {
	return m.Sent < m.Send && (m.Status == StatusReserved || m.Status == StatusPending)
}

// overdue reports whether the invitation of m has expired at the given time.
func (m Member) overdue(now time.Time) bool {
	return m.Status == StatusExpired || m.Status == StatusPending && m.ExpiresAt != nil && !m.ExpiresAt.After(now)
}

// Result is the result for one row or one input. It has a member, an error, or both.
type Result struct {
	Member *Member
	Err    error
}

// Change is a change of one member from Old to New, which have the same ID and TenantID. If
// New is nil, the member and its history are erased. If Old is nil, the member is new. Only
// OnChange gets such changes.
type Change struct {
	Old, New *Member
}

// Recorded reports whether the history records the change. It records changes of the state, the send,
// the invitation, the user, the role and the address. It does not record claims, releases, postponed
// attempts and changes of Data.
func (c Change) Recorded() bool {
	if c.Old == nil || c.New == nil {
		return true
	}
	return c.Old.Status != c.New.Status || c.Old.Send != c.New.Send || c.Old.Sent != c.New.Sent ||
		c.Old.ClerkUserID != c.New.ClerkUserID || c.Old.InvitationID != c.New.InvitationID ||
		c.Old.Role != c.New.Role || c.Old.Email != c.New.Email
}

var (
	// ErrConflict means that the row has changed since it was read, or that a delivery
	// attempt owns it. HTTP 409.
	ErrConflict error = &statusError{409, "the member was modified concurrently; reload it and try again"}

	// ErrUserTaken means that another member of the tenant has the ClerkUserID. Of the
	// methods of Service, only Adopt returns it. HTTP 409.
	ErrUserTaken error = &statusError{409, "another member of this tenant has this Clerk user or invitation"}

	// ErrEmailTaken is returned by a Store if another member of the tenant already has
	// the new Email. The Service handles it and never returns it.
	ErrEmailTaken = errors.New("clerkinvite: another member of this tenant has this address")
)

// Query selects members. A member matches if any of the fields matches it. An empty Query
// matches nothing.
type Query struct {
	Refs    []Ref    // members in any state; normalised; a Ref without Email, ID and ClerkUserID matches nothing
	IDs     []string // members with these IDs, in any tenant and any state; a string that is not a UUID matches nothing
	Emails  []string // waiting members ([Status.Waits]) with these normalised addresses, in any tenant
	UserIDs []string // active members with these Clerk user IDs, in any tenant
}

// PageQuery selects a page of members, ordered by (TenantID, ID), compared byte by byte. A
// member must match all filters.
type PageQuery struct {
	TenantID      string    // members of this tenant; "" means all tenants
	Statuses      []Status  // members in one of these states; empty means any state
	EmailPrefix   string    // members whose normalised address begins with this, compared byte by byte
	InvitedBy     string    // members with this InvitedBy; "" means any
	ExpiresBefore time.Time // pending members whose ExpiresAt is before this; zero means all members

	// NewestFirst reverses the order. It is an error without a TenantID.
	NewestFirst bool

	// AfterTenantID and AfterID identify the last member of the previous page. The member
	// may have been erased. Both are empty for the first page. An AfterID that is not a
	// UUID is an error.
	AfterTenantID, AfterID string

	Limit int // maximum number of members; 0 means 1000
}

// DueQuery selects due members in a fair order:
//   - Members without Bulk come first.
//   - Within each of these two groups tenants take turns: one member of each tenant, then a
//     second member of each, and so on. Tenants are ordered by ID, compared byte by byte. The
//     order begins after AfterTenantID and wraps around.
//   - A tenant's members are ordered by NextAttemptAt and ID.
//
// Within a group, no tenant delays the others for long. Imports (Bulk) wait for all other members.
// So use ReserveMany for lists, and not Reserve.
type DueQuery struct {
	At            time.Time // members whose NextAttemptAt is at or before this
	AfterTenantID string    // the tenant of the last member of the previous batch; "" for none
	Limit         int       // maximum number of members; 0 means 1000
}

// HistoryEntry is one recorded change of a member, see [Change.Recorded]. It contains no address. slog
// and %v omit the role and the actor.
type HistoryEntry struct {
	Version      int64     `json:"version"`        // of the member, after the change
	From         Status    `json:"from,omitempty"` // "" for a new member
	To           Status    `json:"to"`
	Send         int       `json:"send"`
	Sent         int       `json:"sent"`
	ClerkUserID  string    `json:"clerk_user_id,omitempty"`
	InvitationID string    `json:"invitation_id,omitempty"`
	Role         string    `json:"role,omitempty"` // after the change
	Reason       string    `json:"reason,omitempty"`
	Actor        string    `json:"actor,omitempty"` // see [WithActor]
	At           time.Time `json:"at"`
}

// Backlog counts the waiting members of all tenants. Each count stops at 10,000. If the counts
// grow, no process runs [Service.Run], or Clerk fails; see docs/runbook.md.
type Backlog struct {
	Reserved  int       // reserved members, due or not
	Due       int       // members that are due now
	OldestDue time.Time // the earliest NextAttemptAt of the due members; zero if there are none
	Overdue   int       // pending members whose invitation has expired; the next Reconcile handles them
}

// TxStore is the part of a Store that works inside a transaction, see [PgxStore.WithTx].
//
// Until v1, a minor version may add methods to TxStore and Store.
type TxStore interface {
	// Insert writes new rows, each with its first history entry, and returns one Result
	// per row, in the order of rows. The rows are valid, normalised and have distinct
	// addresses. Their Version is ignored; the new Version is 1.
	//
	// If a member with this TenantID and Email exists, the row is not written. Its
	// Result has the existing member, as committed or as written by this transaction, and
	// a *[DuplicateEmailError] with the same member. The database must enforce this with a
	// unique key: of any number of concurrent inserts of an address, exactly one succeeds.
	//
	// If the existing member has the same ID as the row, the row counts as written,
	// because the call is a retry after a lost response.
	//
	// If the address is free, but another member of the tenant has the row's ClerkUserID,
	// the row is not written. Its Result has the other member and ErrUserTaken.
	//
	// If the database refuses a row, for example because of a host's constraint, the row's Result has
	// the error, and the other rows are written. In a host's transaction, such an error may be the
	// whole call's, because nothing more can be written.
	//
	// A duplicate must not abort a surrounding transaction.
	Insert(ctx context.Context, rows []*Member) ([]Result, error)

	// Update applies the changes whose Old.Version is the row's version, adds a history entry
	// for those that are Recorded, and returns one Result per change, in the order of changes.
	// ID and TenantID never change. A Result has one of:
	//   - the changed member, with Version Old.Version + 1;
	//   - ErrConflict: the row has another version or does not exist;
	//   - ErrUserTaken: another member of the tenant has the new ClerkUserID;
	//   - ErrEmailTaken: another member of the tenant has the new Email;
	//   - another error: the database refuses the change, for example because a foreign key of
	//     the host forbids an erasure.
	// The database must enforce ErrUserTaken and ErrEmailTaken with unique keys, so that they
	// also hold against concurrent calls of Insert. If another change of the same call gives up
	// an address or a user, the address or user may still count as taken. One change's failure
	// does not affect the others, even in the same tenant. In a host's transaction, an error of the
	// database may be the whole call's, as for Insert.
	//
	// The history entry has the Role and the ChangedBy of the changed member.
	//
	// A change without New erases the row and its history. Its Result has the member from
	// before the erasure. If the row does not exist, it counts as erased.
	Update(ctx context.Context, changes []Change) ([]Result, error)

	// Clock returns the current time of a clock that all processes with this store share,
	// such as the database server's clock. In a transaction it also returns the current time,
	// not the transaction's start. The zero time means that there is no shared clock. The
	// processes' clocks (Config.Now) may then differ by at most an eighth of Config.Lease.
	Clock(ctx context.Context) (time.Time, error)
}

// Store stores members. [PgxStore] is for production, and clerkinvitetest has a store for
// tests. A host can implement its own and check it with package storetest.
//
// All methods are safe for concurrent use, also by several processes, and safe to retry.
// They return when their context ends. Callers may keep and modify the members that they
// return. Times are UTC with microseconds. A Store does not check which state changes are
// allowed; the Service does.
type Store interface {
	TxStore

	// Find returns the members that q selects, each once, in any order. It reads only
	// committed data. No match is not an error.
	Find(ctx context.Context, q Query) ([]*Member, error)

	// Due returns the due members ([Member.Due]) that q selects, in q's order. If any member is
	// due, it returns at least one. If more than 10,000 tenants have only members that are due
	// later, it may skip tenants with due members.
	Due(ctx context.Context, q DueQuery) ([]*Member, error)

	// Page returns the first members that q selects, in q's order.
	Page(ctx context.Context, q PageQuery) ([]*Member, error)

	// Counts returns how many members of a tenant are in each state. A state without
	// members may be missing.
	Counts(ctx context.Context, tenantID string) (map[Status]int, error)

	// History returns a member's recorded changes, oldest first. The history of a member
	// that does not exist is empty.
	History(ctx context.Context, tenantID, id string) ([]HistoryEntry, error)

	// SwapTime is a compare-and-swap of a named time, shared by all processes. It
	// returns the stored time after the call.
	//   - Read: if old equals next, SwapTime writes nothing. The time of a name that was
	//     never set is zero.
	//   - Set: if the stored time is old, it becomes next. A zero old means "not set
	//     yet". next is zero only if old is.
	//   - Lost race: if the stored time is neither old nor next, SwapTime writes nothing.
	SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error)
}
