package clerkinvite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// ListParams selects members of one tenant. Filters are joined by AND.
type ListParams struct {
	TenantID    string   // 1 to 255 bytes
	Statuses    []Status // in one of these states; none is any
	EmailPrefix string   // whose address begins with this; trimmed and lower-cased, at most 254 bytes
	InvitedBy   string   // whom this one invited; "" is anybody
	Limit       int      // 1 to 1000 members on a page; 0 is 100
	Cursor      string   // Page.Next of the page before; "" is the first page
}

// Page is a page of members.
type Page struct {
	Members []*Member
	Next    string // the cursor of the next page; "" if this is the last
}

// List returns a page of a tenant's members, those invited first first. Pages are cut by
// the member and not by number: a member that comes or goes meanwhile makes no other
// appear twice or not at all. A cursor holds no address and does not expire; it is for
// the same tenant.
//
// Errors: *[InvalidParamsError], a store's error as it is.
func (s *Service) List(ctx context.Context, p ListParams) (_ *Page, err error) {
	ctx, seen := s.observe(ctx, "List")
	defer seen.done(&err)
	q, err := p.query()
	if err != nil {
		return nil, err
	}
	// One more than asked for tells whether there is a next page.
	limit := q.Limit
	q.Limit++
	rows, err := s.store.Page(ctx, q)
	if err != nil {
		return nil, err
	}
	page := &Page{Members: rows}
	if len(rows) > limit {
		page.Members = rows[:limit:limit]
		page.Next = cursor(rows[limit-1].ID)
	}
	return page, nil
}

// All returns all members that p selects, reading page by page of p.Limit as the caller
// goes on. It can be ranged over again, and then reads again. An error is the last that
// it yields. Errors are those of List.
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
	if p.TenantID == "" {
		return PageQuery{}, &InvalidParamsError{"TenantID", "is empty"}
	}
	prefix := strings.ToLower(strings.TrimSpace(p.EmailPrefix))
	for _, check := range []struct{ field, reason string }{
		{"TenantID", checkText(p.TenantID, 255)},
		{"EmailPrefix", checkText(prefix, 254)},
		{"InvitedBy", checkText(p.InvitedBy, 255)},
	} {
		if check.reason != "" {
			return PageQuery{}, &InvalidParamsError{check.field, check.reason}
		}
	}
	for _, status := range p.Statuses {
		if _, known := moves[status]; !known {
			return PageQuery{}, &InvalidParamsError{"Statuses", "has one that is no state of a member"}
		}
	}
	if p.Limit < 0 || p.Limit > 1000 {
		return PageQuery{}, &InvalidParamsError{"Limit", "is not 0 to 1000"}
	}
	if p.Limit == 0 {
		p.Limit = 100
	}
	q := PageQuery{
		TenantID: p.TenantID, Statuses: slices.Compact(slices.Sorted(slices.Values(p.Statuses))), EmailPrefix: prefix, InvitedBy: p.InvitedBy, Limit: p.Limit,
	}
	if p.Cursor != "" {
		id, ok := afterCursor(p.Cursor)
		if !ok {
			return PageQuery{}, &InvalidParamsError{"Cursor", "is none that List has returned"}
		}
		q.AfterTenantID, q.AfterID = p.TenantID, id
	}
	return q, nil
}

// cursor returns the cursor of the page after the member with the id.
func cursor(id string) string {
	u, err := uuid.Parse(id)
	if err != nil {
		return "" // no store has such a row
	}
	return base64.RawURLEncoding.EncodeToString(u[:])
}

func afterCursor(cursor string) (id string, ok bool) {
	// The length comes first: DecodeString passes over line breaks, however many there are.
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

// History returns the moves of a member, the oldest first: who was what, since when, and
// why. Claims, attempts that were postponed and corrections of Role and Data are no moves.
//
// Errors: *[InvalidParamsError], [ErrNotFound], a store's error as it is.
func (s *Service) History(ctx context.Context, ref Ref) (_ []HistoryEntry, err error) {
	ctx, seen := s.observe(ctx, "History")
	defer seen.done(&err)
	m, err := s.get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.store.History(ctx, m.TenantID, m.ID)
}

// MemberUpdate is what Update corrects; what is nil stays as it is.
type MemberUpdate struct {
	Role *string          // at most 255 bytes
	Data *json.RawMessage // JSON, at most 64 KiB and 128 levels; one that holds nil forgets the data
}

// Update corrects the host's own fields of a member, in any state, without a new
// invitation: Clerk knows nothing of them. Of two at once both are made, and the later
// one's value stays.
//
// Errors: *[InvalidParamsError], [ErrNotFound], [ErrConflict] if the member keeps
// changing, a store's error as it is. Update is safe for concurrent use and for repetition.
func (s *Service) Update(ctx context.Context, ref Ref, u MemberUpdate) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Update")
	defer seen.done(&err)
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
	_, now, err := s.change(ctx, ref, func(row *Member) (*Member, error) {
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

// Get returns one member, in any state. Errors: *[InvalidParamsError], [ErrNotFound],
// a store's error as it is.
func (s *Service) Get(ctx context.Context, ref Ref) (_ *Member, err error) {
	ctx, seen := s.observe(ctx, "Get")
	defer seen.done(&err)
	return s.get(ctx, ref)
}

// get is Get as part of another verb.
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
