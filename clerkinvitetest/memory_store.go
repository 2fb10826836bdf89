package clerkinvitetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// MemoryStore is a [clerkinvite.Store] for tests and demos. Never use it in production: its
// members are lost when the process ends, so every restart would invite people again.
//
// The zero value is an empty store. It rejects the same rows as the tables of the PostgreSQL store.
type MemoryStore struct {
	// OnChange, if set, is called before each change that the history records, like
	// clerkinvite.PgxOptions.OnChange. An error rejects the change. Set OnChange before the store is
	// used.
	//
	// Without a transaction, nothing can undo its effects. So it gets one change per call, and an
	// error does not affect the other changes of a batch. The store is locked during the call, so
	// OnChange must not call the store, Clerk or the Service.
	OnChange func(ctx context.Context, changes []clerkinvite.Change) error

	mu      sync.Mutex
	members map[clerkinvite.Ref]*clerkinvite.Member
	ids     map[inTenant]*clerkinvite.Member
	users   map[inTenant]*clerkinvite.Member
	history map[inTenant][]clerkinvite.HistoryEntry
	times   map[string]time.Time
}

// inTenant is the ID of a member or of a Clerk user in a tenant.
type inTenant struct{ tenantID, id string }

var _ clerkinvite.Store = (*MemoryStore)(nil)

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{} }

// lock locks the store. The zero value gets its maps here.
func (s *MemoryStore) lock() {
	s.mu.Lock()
	if s.members == nil {
		s.members = make(map[clerkinvite.Ref]*clerkinvite.Member)
		s.ids = make(map[inTenant]*clerkinvite.Member)
		s.users = make(map[inTenant]*clerkinvite.Member)
		s.history = make(map[inTenant][]clerkinvite.HistoryEntry)
		s.times = make(map[string]time.Time)
	}
}

// Insert implements [clerkinvite.TxStore].
func (s *MemoryStore) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	results := make([]clerkinvite.Result, len(rows))
	for i, row := range rows {
		m := row.Clone()
		m.Version = 1
		old, ok := s.members[m.Ref()]
		illegal := check(m)
		switch {
		case illegal != nil:
			results[i].Err = illegal
		case ok && old.ID == m.ID:
			results[i].Member = old.Clone()
		case ok:
			results[i].Member = old.Clone()
			results[i].Err = &clerkinvite.DuplicateEmailError{Ref: m.Ref(), Member: old.Clone()}
		case s.holder(m) != nil:
			results[i] = clerkinvite.Result{Member: s.holder(m).Clone(), Err: clerkinvite.ErrUserTaken}
		case s.ids[inTenant{m.TenantID, m.ID}] != nil:
			results[i].Err = fmt.Errorf("clerkinvitetest: another member has the row's ID: %w", clerkinvite.ErrConflict)
		default:
			results[i] = s.change(ctx, nil, m)
		}
	}
	return results, nil
}

// Update implements [clerkinvite.TxStore].
func (s *MemoryStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		now := s.current(c.Old)
		switch {
		case now == nil && c.New == nil: // erased already
			results[i].Member = c.Old.Clone()
		case now == nil || now.Version != c.Old.Version:
			results[i].Err = clerkinvite.ErrConflict
		case c.New == nil:
			results[i] = s.change(ctx, now, nil)
		default:
			results[i] = s.replace(ctx, now, successor(now, c.New))
		}
	}
	return results, nil
}

// replace replaces now by next, if the rules and the keys allow it.
func (s *MemoryStore) replace(ctx context.Context, now, next *clerkinvite.Member) clerkinvite.Result {
	if err := check(next); err != nil {
		return clerkinvite.Result{Err: err}
	}
	switch {
	case s.holder(next) != nil:
		return clerkinvite.Result{Err: clerkinvite.ErrUserTaken}
	case next.Email != now.Email && s.members[next.Ref()] != nil:
		return clerkinvite.Result{Err: clerkinvite.ErrEmailTaken}
	}
	return s.change(ctx, now, next)
}

// current returns the stored row with the ID of m, or nil.
func (s *MemoryStore) current(m *clerkinvite.Member) *clerkinvite.Member {
	return s.ids[inTenant{m.TenantID, strings.ToLower(m.ID)}]
}

// successor returns the row that replaces now.
func successor(now, next *clerkinvite.Member) *clerkinvite.Member {
	row := next.Clone()
	row.ID, row.TenantID, row.Version = now.ID, now.TenantID, now.Version+1
	return row
}

// change makes a change of a member unless OnChange refuses it. old is nil for a new member, and next for
// an erased one.
func (s *MemoryStore) change(ctx context.Context, old, next *clerkinvite.Member) clerkinvite.Result {
	c := clerkinvite.Change{Old: old.Clone(), New: next.Clone()}
	if s.OnChange != nil && c.Recorded() {
		if err := s.OnChange(ctx, []clerkinvite.Change{c}); err != nil {
			return clerkinvite.Result{Err: err}
		}
	}
	if next == nil {
		s.erase(old)
		return clerkinvite.Result{Member: old.Clone()}
	}
	s.put(old, next)
	return clerkinvite.Result{Member: next.Clone()}
}

// put stores m and replaces old, which is nil for a new row.
func (s *MemoryStore) put(old, m *clerkinvite.Member) {
	entry := clerkinvite.HistoryEntry{
		Version: m.Version, To: m.Status, Send: m.Send, Sent: m.Sent,
		ClerkUserID: m.ClerkUserID, InvitationID: m.InvitationID, Role: m.Role, Reason: m.Reason, Actor: m.ChangedBy, At: m.UpdatedAt,
	}
	if old != nil {
		entry.From = old.Status
		delete(s.users, inTenant{old.TenantID, old.ClerkUserID})
		delete(s.members, old.Ref())
	}
	if m.ClerkUserID != "" {
		s.users[inTenant{m.TenantID, m.ClerkUserID}] = m
	}
	id := inTenant{m.TenantID, m.ID}
	s.members[m.Ref()], s.ids[id] = m, m
	if (clerkinvite.Change{Old: old, New: m}).Recorded() {
		s.history[id] = append(s.history[id], entry)
	}
}

// erase deletes m and its history.
func (s *MemoryStore) erase(m *clerkinvite.Member) {
	id := inTenant{m.TenantID, m.ID}
	delete(s.users, inTenant{m.TenantID, m.ClerkUserID})
	delete(s.members, m.Ref())
	delete(s.ids, id)
	delete(s.history, id)
}

// holder returns another member of the tenant with the Clerk user of m, or nil.
func (s *MemoryStore) holder(m *clerkinvite.Member) *clerkinvite.Member {
	if holder := s.users[inTenant{m.TenantID, m.ClerkUserID}]; m.ClerkUserID != "" && holder != nil && holder.ID != m.ID {
		return holder
	}
	return nil
}

// Find implements [clerkinvite.Store].
func (s *MemoryStore) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	refs, ids, emails, users := set(q.Refs), make(map[string]bool), set(q.Emails), set(q.UserIDs)
	for _, id := range q.IDs {
		ids[strings.ToLower(id)] = true
	}
	return s.first(0, sorted(byID), func(m *clerkinvite.Member) bool {
		return refs[m.Ref()] || refs[clerkinvite.Ref{TenantID: m.TenantID, ID: m.ID}] ||
			m.ClerkUserID != "" && refs[clerkinvite.Ref{TenantID: m.TenantID, ClerkUserID: m.ClerkUserID}] ||
			ids[m.ID] || emails[m.Email] && m.Status.Waits() || users[m.ClerkUserID] && m.Status == clerkinvite.StatusActive
	}), nil
}

// Due implements [clerkinvite.Store].
func (s *MemoryStore) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	inTurns := func(found []*clerkinvite.Member) {
		storeutil.InTurns(found, q.AfterTenantID,
			func(m *clerkinvite.Member) (bool, string) { return m.Bulk, m.TenantID },
			func(a, b *clerkinvite.Member) int {
				return cmp.Or(a.NextAttemptAt.Compare(*b.NextAttemptAt), cmp.Compare(a.ID, b.ID))
			})
	}
	return s.first(storeutil.Limit(q.Limit), inTurns, func(m *clerkinvite.Member) bool {
		return m.Due() && !m.NextAttemptAt.After(q.At)
	}), nil
}

// Page implements [clerkinvite.Store].
func (s *MemoryStore) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	statuses, after := set(q.Statuses), strings.ToLower(q.AfterID)
	if after != "" && !storeutil.IsUUID(after) || !storeutil.IsText(q.AfterTenantID) {
		return nil, errors.New("clerkinvitetest: invalid PageQuery: AfterID must be a member's ID, and AfterTenantID its tenant")
	}
	if q.NewestFirst && q.TenantID == "" {
		return nil, errors.New("clerkinvitetest: invalid PageQuery: NewestFirst needs a TenantID")
	}
	order, first := byID, q.AfterTenantID == "" && after == ""
	if q.NewestFirst {
		order = func(a, b *clerkinvite.Member) int { return byID(b, a) }
	}
	last := &clerkinvite.Member{TenantID: q.AfterTenantID, ID: after}
	return s.first(storeutil.Limit(q.Limit), sorted(order), func(m *clerkinvite.Member) bool {
		return (q.TenantID == "" || m.TenantID == q.TenantID) &&
			(len(statuses) == 0 || statuses[m.Status]) &&
			strings.HasPrefix(m.Email, q.EmailPrefix) && storeutil.IsText(q.EmailPrefix) &&
			(q.InvitedBy == "" || m.InvitedBy == q.InvitedBy) &&
			(q.ExpiresBefore.IsZero() || m.Status == clerkinvite.StatusPending && m.ExpiresAt != nil && m.ExpiresAt.Before(q.ExpiresBefore)) &&
			(first || order(m, last) > 0)
	}), nil
}

// Counts implements [clerkinvite.Store].
func (s *MemoryStore) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	counts := make(map[clerkinvite.Status]int)
	for _, m := range s.members {
		if m.TenantID == tenantID {
			counts[m.Status]++
		}
	}
	return counts, nil
}

// byID is the order of a page.
func byID(a, b *clerkinvite.Member) int {
	return cmp.Or(cmp.Compare(a.TenantID, b.TenantID), cmp.Compare(a.ID, b.ID))
}

// sorted returns a function that sorts members.
func sorted(order func(a, b *clerkinvite.Member) int) func([]*clerkinvite.Member) {
	return func(found []*clerkinvite.Member) { slices.SortFunc(found, order) }
}

// first returns copies of the first members that match, at most limit of them; 0 means all.
func (s *MemoryStore) first(limit int, sort func(found []*clerkinvite.Member), match func(*clerkinvite.Member) bool) []*clerkinvite.Member {
	var found []*clerkinvite.Member
	for _, m := range s.members {
		if match(m) {
			found = append(found, m)
		}
	}
	sort(found)
	if limit > 0 {
		found = found[:min(limit, len(found))]
	}
	for i, m := range found {
		found[i] = m.Clone()
	}
	return found
}

// History implements [clerkinvite.Store].
func (s *MemoryStore) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return slices.Clone(s.history[inTenant{tenantID, strings.ToLower(id)}]), nil
}

// Backlog counts the work that waits, like [clerkinvite.PgxStore.Backlog]. The error is the context's.
func (s *MemoryStore) Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error) {
	s.lock()
	defer s.mu.Unlock()
	var b clerkinvite.Backlog
	if err := ctx.Err(); err != nil {
		return b, err
	}
	for _, m := range s.members {
		if m.Status == clerkinvite.StatusPending && m.ExpiresAt != nil && !m.ExpiresAt.After(now) {
			b.Overdue++
		}
		if !m.Due() {
			continue
		}
		if m.Status == clerkinvite.StatusReserved {
			b.Reserved++
		}
		if m.NextAttemptAt.After(now) {
			continue
		}
		b.Due++
		if b.OldestDue.IsZero() || m.NextAttemptAt.Before(b.OldestDue) {
			b.OldestDue = *m.NextAttemptAt
		}
	}
	b.Reserved, b.Due, b.Overdue = min(b.Reserved, 10_000), min(b.Due, 10_000), min(b.Overdue, 10_000)
	return b, nil
}

// Clock implements [clerkinvite.Store]. A store in memory has no clock, so it returns the zero time.
func (s *MemoryStore) Clock(ctx context.Context) (time.Time, error) { return time.Time{}, ctx.Err() }

// SwapTime implements [clerkinvite.Store].
func (s *MemoryStore) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	s.lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if !next.IsZero() && s.times[name].Equal(old.Truncate(time.Microsecond)) {
		s.times[name] = next.UTC().Truncate(time.Microsecond)
	}
	return s.times[name], nil
}

func set[T comparable](list []T) map[T]bool {
	m := make(map[T]bool, len(list))
	for _, v := range list {
		m[v] = true
	}
	return m
}

// check rejects what the types and CHECK constraints of clerkinvite_member reject.
func check(m *clerkinvite.Member) error {
	between := func(n, low, high int) bool { return low <= n && n <= high }
	pendingID := strings.HasPrefix(m.ClerkUserID, clerkinvite.PendingPrefix)

	user, due := m.ClerkUserID == "", true
	switch m.Status {
	case clerkinvite.StatusReserved:
		due = m.Sent < m.Send && m.NextAttemptAt != nil
	case clerkinvite.StatusPending:
		user = m.InvitationID != "" && m.ClerkUserID == clerkinvite.PendingPrefix+m.InvitationID
		due = m.Sent == m.Send || m.NextAttemptAt != nil
	case clerkinvite.StatusActive:
		user = between(len(m.ClerkUserID), 1, 255) && !pendingID
	case clerkinvite.StatusFailed, clerkinvite.StatusRevoked, clerkinvite.StatusExpired, clerkinvite.StatusRemoved:
	default:
		return errors.New("clerkinvitetest: invalid member: Status")
	}
	text := true
	for _, s := range []string{m.TenantID, m.Email, m.ClerkUserID, m.InvitationID, m.URL.Reveal(), m.Role, m.InvitedBy, m.ChangedBy, m.Reason, string(m.Data), string(m.Params)} {
		text = text && storeutil.IsText(s)
	}
	local, domain, _ := strings.Cut(m.Email, "@")

	for _, rule := range []struct {
		field string
		ok    bool
	}{
		{"ID", storeutil.IsUUID(m.ID)},
		{"TenantID", between(len(m.TenantID), 1, 255)},
		{"Email", len(m.Email) <= 254 && local != "" && domain != "" && m.Email == strings.ToLower(m.Email)},
		{"ClerkUserID", user},
		{"InvitationID", len(m.InvitationID) <= 247},
		{"Send", m.Send >= 1},
		{"Sent", between(m.Sent, 0, m.Send)},
		{"Attempts", m.Attempts >= 0},
		{"Version", m.Version >= 1},
		{"NextAttemptAt, which a due member needs", due},
		{"URL, which only a pending member has", m.URL.IsZero() || m.Status == clerkinvite.StatusPending && len(m.URL.Reveal()) <= 16384},
		{"Role", len(m.Role) <= 1024},
		{"InvitedBy", len(m.InvitedBy) <= 1024},
		{"ChangedBy", len(m.ChangedBy) <= 1024},
		{"Reason", len(m.Reason) <= 1024},
		{"Data", m.Data == nil || json.Valid(m.Data)},
		{"Params", m.Params == nil || json.Valid(m.Params)},
		{"text that is not UTF-8", text},
	} {
		if !rule.ok {
			return errors.New("clerkinvitetest: invalid member: " + rule.field)
		}
	}
	return nil
}
