package clerkinvite

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Status is the state of a member. The table of allowed state changes is in state.go.
//
// A new status also needs: a place in [Statuses] and in that table, an answer from
// [Status.Waits] and [Member.Due], the CHECK constraints and the conditions of the
// partial indexes in migrations/ and in sqlitestore/migrations/ (the statements repeat
// these conditions), the rules of clerkinvitetest.MemoryStore, and the model in
// internal/model/protocol. Everything else uses Statuses.
type Status string

const (
	StatusReserved Status = "reserved" // the row is written; Clerk was not called yet, or its response was lost
	StatusPending  Status = "pending"  // invited; ClerkUserID is "pending_" + InvitationID
	StatusActive   Status = "active"   // a Clerk user; ClerkUserID is that user's ID
	StatusFailed   Status = "failed"   // Clerk refused this person; Reason says why
	StatusRevoked  Status = "revoked"  // the invitation was revoked
	StatusExpired  Status = "expired"  // the invitation expired
	StatusRemoved  Status = "removed"  // no longer in the tenant; Reason says why
)

// Statuses returns all states, in the order of the constants.
func Statuses() []Status {
	return []Status{StatusReserved, StatusPending, StatusActive, StatusFailed, StatusRevoked, StatusExpired, StatusRemoved}
}

// Waits reports whether a member in this state becomes active when the person signs up
// with its address: reserved, pending and expired.
func (s Status) Waits() bool {
	return s == StatusReserved || s == StatusPending || s == StatusExpired
}

// Ref names one member: one address in one tenant.
type Ref struct {
	TenantID string // the host's own id of its customer, 1 to 255 bytes
	Email    string // in any writing; it is normalised before it is compared
}

// Member is one person in one tenant. It is a value: changing it does not change the store.
// slog and %v print it without personal data (see [Member.LogValue]); %+v and encoding/json
// include the address, but never the URL.
type Member struct {
	ID       string `json:"id"` // UUID version 7
	TenantID string `json:"tenant_id"`
	Email    string `json:"email"` // normalised
	Status   Status `json:"status"`

	// ClerkUserID is "pending_" + InvitationID while pending, the Clerk user's id
	// while active, and empty in every other state. See [IsPending].
	ClerkUserID  string `json:"clerk_user_id,omitempty"`
	InvitationID string `json:"invitation_id,omitempty"` // the current or last invitation at Clerk

	// URL is the invitation's link. Anyone who has it can accept the invitation, so it is
	// returned to the caller of Invite, stored only for invitations that the host mails
	// itself (SkipEmail), and cleared when the member leaves pending.
	URL Secret `json:"-"`

	Role      string          `json:"role,omitempty"`
	InvitedBy string          `json:"invited_by,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"` // the host's own; nil or a JSON value

	// Params is what goes to Clerk with the invitation, in the library's own
	// encoding. Stores keep it byte for byte.
	Params json.RawMessage `json:"-"`

	Send     int    `json:"send"`             // number of the invitation wanted; 1 is the first
	Sent     int    `json:"sent"`             // number of the last one settled; Sent < Send of a reserved or pending member means: due for delivery
	Attempts int    `json:"attempts"`         // attempts at delivering Send, the running one included
	Reason   string `json:"reason,omitempty"` // why the member is in its state, for people: a code of Clerk's or of the library's (Reason constants)
	Version  int64  `json:"version"`          // grows by one with every change; what compare-and-set compares

	ReservedAt    time.Time  `json:"reserved_at"`               // when the row was written for this Send
	InvitedAt     *time.Time `json:"invited_at,omitempty"`      // created_at of the invitation, by Clerk's clock
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`      // expires_at of the invitation, by Clerk's clock
	SettledAt     *time.Time `json:"settled_at,omitempty"`      // when the last invitation, or the end, was written: when it left reserved or was sent again
	ClaimedUntil  *time.Time `json:"claimed_until,omitempty"`   // until then one attempt owns the row
	NextAttemptAt *time.Time `json:"next_attempt_at,omitempty"` // when delivery is due; nil when nothing is due
	UpdatedAt     time.Time  `json:"updated_at"`
}

// Clone returns a copy of m that shares no memory with it, in the form in which a Store
// returns members: the ID in lower case, times in UTC with microseconds, and nil for
// empty JSON. The copy of nil is nil.
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

// Ref returns the tenant and address of m.
func (m Member) Ref() Ref { return Ref{m.TenantID, m.Email} }

// Due reports whether an invitation of m is still to be delivered: the member is reserved
// or pending, and Sent < Send. It is delivered at NextAttemptAt.
func (m Member) Due() bool {
	return m.Sent < m.Send && (m.Status == StatusReserved || m.Status == StatusPending)
}

// held reports whether an attempt owns m at the given time. A claim that lasts longer
// than any lease is the work of a process whose clock was wrong.
func (m Member) held(now time.Time) bool {
	return m.ClaimedUntil != nil && m.ClaimedUntil.After(now) && m.ClaimedUntil.Before(now.Add(2*maxLease))
}

// overdue reports whether the invitation of m has run out at the given time.
func (m Member) overdue(now time.Time) bool {
	return m.Status == StatusExpired || m.Status == StatusPending && m.ExpiresAt != nil && !m.ExpiresAt.After(now)
}

// Result is what became of one row or one input: a member, an error, or both.
type Result struct {
	Member *Member
	Err    error
}

// Change is one move of one member: Old as it was read, New as it shall be.
// New differs from Old in neither ID, TenantID nor Email. Without New the member is
// erased, its history included; without Old it is a new one, which only a hook sees
// ([PgxOptions].OnChange): new members come by Insert.
type Change struct {
	Old, New *Member
}

// Recorded reports whether the change is a move that the history keeps: one of
// state, send, invitation or user. A claim, a release, a postponed attempt or a
// corrected role is not.
func (c Change) Recorded() bool {
	if c.Old == nil || c.New == nil {
		return true
	}
	return c.Old.Status != c.New.Status || c.Old.Send != c.New.Send || c.Old.Sent != c.New.Sent ||
		c.Old.ClerkUserID != c.New.ClerkUserID || c.Old.InvitationID != c.New.InvitationID
}

var (
	// ErrConflict says that the row is not, or no longer, as the caller believed:
	// a compare-and-set failed, or another attempt holds the row. HTTP 409.
	ErrConflict error = &statusError{409, "the member was changed meanwhile; read it again"}

	// ErrUserTaken is a Store's answer for a row whose new ClerkUserID another
	// member of the same tenant has already. The service turns it into the move
	// that design asks for; callers of the service do not see it.
	ErrUserTaken = errors.New("clerkinvite: another member of this tenant has this Clerk user")
)

// Query selects members. A member matches if any of the selectors matches it. An empty
// Query matches nothing.
type Query struct {
	Refs    []Ref    // members with these normalised addresses in these tenants, in any state
	IDs     []string // members with these IDs, in any tenant and any state; a string that is not a UUID matches nothing
	Emails  []string // waiting members ([Status.Waits]) with these normalised addresses, in any tenant
	UserIDs []string // active members with these Clerk user IDs, in any tenant
}

// PageQuery selects a page of members in the order of (TenantID, ID), compared byte by
// byte. A member matches if all of the filters match it.
type PageQuery struct {
	TenantID    string   // members of this tenant; "" means all tenants
	Statuses    []Status // members in one of these states; empty means any state
	EmailPrefix string   // members whose normalised address begins with this, compared byte by byte
	InvitedBy   string   // members with this InvitedBy; "" means any

	// AfterTenantID and AfterID name the last member of the previous page, which need
	// not exist any more. Both are empty for the first page. An AfterID that is not a
	// UUID is an error.
	AfterTenantID, AfterID string

	Limit int // maximum number of members; 0 means 1000
}

// HistoryEntry is one recorded state change of a member.
type HistoryEntry struct {
	Version      int64     `json:"version"`        // of the member, after the change
	From         Status    `json:"from,omitempty"` // "" for a new member
	To           Status    `json:"to"`
	Send         int       `json:"send"`
	Sent         int       `json:"sent"`
	ClerkUserID  string    `json:"clerk_user_id,omitempty"`
	InvitationID string    `json:"invitation_id,omitempty"`
	Reason       string    `json:"reason,omitempty"`
	At           time.Time `json:"at"`
}

// Backlog is what waits, in all tenants. Counts end at 10,000: a store that has more
// says so many. If it grows, no process runs [Service.Run], or Clerk fails: the
// runbook in docs says more.
type Backlog struct {
	Reserved  int       // members that are reserved, waiting for their time or not
	Due       int       // members that Clerk has to be told about, and whose time has come
	OldestDue time.Time // since when the longest due of them is due; zero if none is
	Overdue   int       // pending members whose invitation has run out, which no Reconcile has seen yet
}

// TxStore is the part of a Store that reserving needs. [PgxStore.WithTx] returns
// one that works inside the host's transaction.
//
// Methods may be added to TxStore and Store in a minor version until v1.
type TxStore interface {
	// Insert writes new rows, each with its history record, and returns one Result
	// per row in the order of the input.
	//
	// A row whose (TenantID, Email) exists already is not written: its Result holds
	// the existing Member, as committed (or as this transaction wrote it), and a
	// *[DuplicateEmailError] with the same. It is the database that finds this out,
	// by its unique key; of any number of concurrent inserts of one address exactly
	// one is written. A row with the ID of an existing one, as after a repeated call
	// whose first answer was lost, counts as written.
	//
	// Insert must not spoil a surrounding transaction when it meets a duplicate.
	// The rows are valid, normalised and without doubles. Version of the result is 1.
	Insert(ctx context.Context, rows []*Member) ([]Result, error)

	// Update makes each change whose Old.Version is the row's version, with its
	// history record if it is Recorded, and returns one Result per change in the
	// order of the input: the Member as it is now (Version is Old.Version + 1), or
	// ErrConflict when the version is another or the row is gone, or ErrUserTaken
	// when another row of the tenant has the new ClerkUserID. One row's failure
	// does not stop the others. ID, TenantID and Email are never changed.
	//
	// A change without New erases the row and its history. Its Member is the row as
	// it was; a row that is gone already counts as erased.
	Update(ctx context.Context, changes []Change) ([]Result, error)
}

// Store keeps members. [PgxStore] is the one for production, clerkinvitetest has
// one for tests, and a host can write its own: package storetest checks it.
//
// All methods are safe for concurrent use, from several processes too, honour
// their context, and return members that the caller may keep and change. Times are
// UTC with microseconds. Repeating a call whose answer was lost does no harm.
// A Store does not know the protocol: which move is allowed is the service's.
type Store interface {
	TxStore

	// Find returns the members that q selects, each once, in any order. It reads only
	// committed data. No match is not an error.
	Find(ctx context.Context, q Query) ([]*Member, error)

	// Due returns the members that are due ([Member.Due]) with a NextAttemptAt not
	// after at, the earliest first, and at most limit of them; 0 means 1000.
	Due(ctx context.Context, at time.Time, limit int) ([]*Member, error)

	// Page returns the first members that q selects, in the order of (TenantID, ID).
	Page(ctx context.Context, q PageQuery) ([]*Member, error)

	// History returns the recorded state changes of a member, the oldest first. A
	// member that does not exist has none.
	History(ctx context.Context, tenantID, id string) ([]HistoryEntry, error)

	// SwapTime is a compare-and-swap of a named time, shared by all processes. It
	// returns the stored time after the call.
	//   - Read: if old equals next, nothing is written. A name that was never set has
	//     the zero time.
	//   - Set: if the stored time is old, it becomes next. A zero old means "not set
	//     yet". next is never zero unless old is.
	//   - Lost race: if the stored time is neither old nor next, nothing is written, and
	//     the stored time is returned.
	SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error)
}
