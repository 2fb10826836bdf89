package clerkinvite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Get returns one member, in any state. Set ref.ClerkUserID to check whether a user is a member of the
// tenant. Get executes one statement.
//
// Errors: *[InvalidParamsError]; [ErrNotFound]; the context's and the store's error, unchanged.
// Get is safe for concurrent use and safe to retry.
func (s *Service) Get(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Get")
	defer op.end(&err)
	return s.get(ctx, ref)
}

// get is Get without an observed operation, for use in other methods.
func (s *Service) get(ctx context.Context, ref Ref) (*Member, error) {
	ref, err := ref.normalized()
	if err != nil {
		return nil, err
	}
	found, err := s.store.Find(ctx, Query{Refs: []Ref{ref}})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, ErrNotFound
	}
	return found[0], nil
}

// ByUser returns a Clerk user's active members in all tenants, ordered by TenantID, for example for a
// tenant switcher. The result is empty if the user is not active in any tenant. To check one tenant,
// call Get with a [Ref] that has the ClerkUserID. ByUser executes one statement and does not call Clerk.
//
// Errors: *[InvalidParamsError]; the context's and the store's error, unchanged. ByUser is safe for
// concurrent use and safe to retry.
func (s *Service) ByUser(ctx context.Context, userID string) (_ []*Member, err error) {
	ctx, op := s.observe(ctx, "ByUser")
	defer op.end(&err)
	if !clerkID.MatchString(userID) {
		return nil, &InvalidParamsError{"userID", "must be a Clerk ID (user_…)"}
	}
	found, err := s.store.Find(ctx, Query{UserIDs: []string{userID}})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *Member) int { return strings.Compare(a.TenantID, b.TenantID) })
	return found, nil
}

// Counts returns the number of a tenant's members in each state. The map contains every state in
// [Statuses], including those without members. Counts executes one statement, which reads one index
// entry per member of the tenant.
//
// Errors: *[InvalidParamsError]; the context's and the store's error, unchanged. Counts is safe for
// concurrent use and safe to retry.
func (s *Service) Counts(ctx context.Context, tenantID string) (_ map[Status]int, err error) {
	ctx, op := s.observe(ctx, "Counts")
	defer op.end(&err)
	if err := checkTenant(tenantID); err != nil {
		return nil, err
	}
	found, err := s.store.Counts(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	counts := make(map[Status]int)
	for _, status := range Statuses() {
		counts[status] = found[status]
	}
	return counts, nil
}

// ListParams selects members of one tenant. A member must match all filters.
type ListParams struct {
	TenantID string   // 1 to 255 bytes
	Statuses []Status // in one of these states; empty means any state

	// EmailPrefix selects addresses that begin with it. It is normalised like an address: trimmed,
	// lower-cased, and its domain converted to ASCII. A domain label with non-ASCII letters must be
	// complete. The normalised prefix has at most 254 bytes.
	EmailPrefix string

	InvitedBy     string    // with this InvitedBy; "" means any
	ExpiresBefore time.Time // pending, with an invitation that expires before this or has expired; zero means any
	NewestFirst   bool      // reverse the order
	Limit         int       // 1 to 1000 members per page; 0 means 100
	Cursor        string    // Page.Next of the previous page; "" means the first page
}

// Page is a page of members.
type Page struct {
	Members []*Member `json:"members"` // never nil
	Next    string    `json:"next"`    // the cursor of the next page; "" if this is the last
}

// List returns a page of a tenant's members, ordered by when they were first invited. Pagination is
// keyset-based: members added or removed between pages do not shift the others. A cursor contains no
// address, does not expire, and works only with the same tenant and the same NewestFirst.
//
// Errors: *[InvalidParamsError]; the context's and the store's error, unchanged. List is safe for
// concurrent use and safe to retry.
func (s *Service) List(ctx context.Context, p ListParams) (_ *Page, err error) {
	ctx, op := s.observe(ctx, "List")
	defer op.end(&err)
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	limit := q.Limit
	q.Limit++ // an extra row shows whether there is a next page
	rows, err := s.store.Page(ctx, q)
	if err != nil {
		return nil, err
	}
	page := &Page{Members: append([]*Member{}, rows[:min(limit, len(rows))]...)} // [] in JSON, not null
	if len(rows) > limit {
		page.Next = cursor(rows[limit-1].ID, p.NewestFirst)
	}
	return page, nil
}

// All iterates over all members that p selects. It reads p.Limit members at a time. Each range over the
// result reads them again. The iteration ends after an error.
//
// Errors: see List.
func (s *Service) All(ctx context.Context, p ListParams) iter.Seq2[*Member, error] {
	return func(yield func(*Member, error) bool) {
		for p := p; ; {
			page, err := s.List(ctx, p)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, m := range page.Members {
				if !yield(m, nil) {
					return
				}
			}
			if p.Cursor = page.Next; p.Cursor == "" {
				return
			}
		}
	}
}

// query checks p and returns the query for the store.
func (p ListParams) query() (PageQuery, error) {
	if err := checkTenant(p.TenantID); err != nil {
		return PageQuery{}, err
	}
	prefix, reason := normalizePrefix(p.EmailPrefix)
	for _, check := range []struct{ field, reason string }{
		{"EmailPrefix", reason},
		{"InvitedBy", checkText(p.InvitedBy, 255)},
	} {
		if check.reason != "" {
			return PageQuery{}, &InvalidParamsError{check.field, check.reason}
		}
	}
	for _, status := range p.Statuses {
		if _, known := transitions[status]; !known {
			return PageQuery{}, &InvalidParamsError{"Statuses", "contains an unknown status"}
		}
	}
	if p.Limit < 0 || p.Limit > 1000 {
		return PageQuery{}, &InvalidParamsError{"Limit", "must be 0 to 1000"}
	}
	if p.Limit == 0 {
		p.Limit = 100
	}
	q := PageQuery{
		TenantID: p.TenantID, Statuses: slices.Compact(slices.Sorted(slices.Values(p.Statuses))),
		EmailPrefix: prefix, InvitedBy: p.InvitedBy, ExpiresBefore: p.ExpiresBefore,
		NewestFirst: p.NewestFirst, Limit: p.Limit,
	}
	if p.Cursor != "" {
		id, ok := afterCursor(p.Cursor, p.NewestFirst)
		if !ok {
			return PageQuery{}, &InvalidParamsError{"Cursor", "is not a cursor returned by List for this order"}
		}
		q.AfterTenantID, q.AfterID = p.TenantID, id
	}
	return q, nil
}

// newestMark is the prefix of cursors for NewestFirst.
const newestMark = "."

// cursor returns the cursor of the page that follows the member with this ID.
func cursor(id string, newestFirst bool) string {
	u, err := uuid.Parse(id)
	if err != nil {
		return "" // stores contain only UUIDs
	}
	cursor := base64.RawURLEncoding.EncodeToString(u[:])
	if newestFirst {
		return newestMark + cursor
	}
	return cursor
}

func afterCursor(cursor string, newestFirst bool) (id string, ok bool) {
	cursor, marked := strings.CutPrefix(cursor, newestMark)
	if marked != newestFirst {
		return "", false
	}
	// Check the length first, because DecodeString skips any number of line breaks.
	if len(cursor) != base64.RawURLEncoding.EncodedLen(len(uuid.UUID{})) {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return "", false
	}
	u, err := uuid.FromBytes(b)
	return u.String(), err == nil
}

// History returns the changes of a member's state, invitation, user, role and address, oldest first.
// Claims, postponed attempts and changes of Data are not recorded.
//
// Errors: *[InvalidParamsError]; [ErrNotFound]; the context's and the store's error, unchanged.
// History is safe for concurrent use and safe to retry.
func (s *Service) History(ctx context.Context, ref Ref) (_ []HistoryEntry, err error) {
	ctx, op := s.observe(ctx, "History")
	defer op.end(&err)
	m, err := s.get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.store.History(ctx, m.TenantID, m.ID)
}

// MemberUpdate contains the new values for Update. Nil fields are left unchanged.
type MemberUpdate struct {
	Role *string          // at most 255 bytes
	Data *json.RawMessage // JSON, at most 64 KiB as stored and 128 levels deep; a pointer to nil clears the data
}

// Update changes the role and the data of a member, in any state. It does not call Clerk. The history
// records a change of the role. If two updates run concurrently, both succeed and the later one wins.
//
// Errors: *[InvalidParamsError]; [ErrNotFound]; [ErrConflict] if the member keeps changing; the
// context's and the store's error, unchanged. Update is safe for concurrent use and safe to retry.
func (s *Service) Update(ctx context.Context, ref Ref, u MemberUpdate) (_ *Member, err error) {
	ctx, op := s.observe(ctx, "Update")
	defer op.end(&err)
	if u.Role != nil {
		if reason := checkText(*u.Role, 255); reason != "" {
			return nil, &InvalidParamsError{"Role", reason}
		}
	}
	if u.Data != nil {
		if reason := checkData(*u.Data); reason != "" {
			return nil, &InvalidParamsError{"Data", reason}
		}
	}
	if err := s.setClock(ctx, s.store); err != nil {
		return nil, err
	}
	now, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
		next := *row
		if u.Role != nil {
			next.Role = *u.Role
		}
		if u.Data != nil {
			next.Data = *u.Data
		}
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	return now, nil
}

type actorKey struct{}

// WithActor returns a context for calls on behalf of id, the host's ID of an admin, a job or a script.
// id has at most 255 bytes, and no control or invisible characters. Every recorded change under this
// context has id as [HistoryEntry].Actor and [Member].ChangedBy. Without an actor, both are empty. This
// includes changes by Run, Reconcile and webhooks, unless the host passes them a context with an actor.
//
// Under a context with an invalid actor, every method that writes returns an *[InvalidParamsError]
// before it writes anything or calls Clerk.
func WithActor(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, actorKey{}, id)
}

// actor returns the actor of ctx, or "".
func actor(ctx context.Context) string {
	id, _ := ctx.Value(actorKey{}).(string)
	return id
}

// checkActor returns an *InvalidParamsError if the actor of ctx is invalid.
func checkActor(ctx context.Context) error {
	if reason := checkText(actor(ctx), 255); reason != "" {
		return &InvalidParamsError{"actor", reason}
	}
	return nil
}
