package storetest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// faulty is a correct store with some methods replaced.
type faulty struct {
	*clerkinvitetest.MemoryStore

	insert func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error)
	update func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error)
	find   func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error)
	due    func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error)
	page   func(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error)

	history func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error)
	counts  func(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error)
	swap    func(ctx context.Context, name string, old, next time.Time) (time.Time, error)
	clock   func(ctx context.Context) (time.Time, error)
}

func (s *faulty) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	if s.insert != nil {
		return s.insert(ctx, rows)
	}
	return s.MemoryStore.Insert(ctx, rows)
}

func (s *faulty) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	if s.update != nil {
		return s.update(ctx, changes)
	}
	return s.MemoryStore.Update(ctx, changes)
}

func (s *faulty) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	if s.find != nil {
		return s.find(ctx, q)
	}
	return s.MemoryStore.Find(ctx, q)
}

func (s *faulty) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	if s.due != nil {
		return s.due(ctx, q)
	}
	return s.MemoryStore.Due(ctx, q)
}

func (s *faulty) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	if s.page != nil {
		return s.page(ctx, q)
	}
	return s.MemoryStore.Page(ctx, q)
}

func (s *faulty) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	if s.counts != nil {
		return s.counts(ctx, tenantID)
	}
	return s.MemoryStore.Counts(ctx, tenantID)
}

func (s *faulty) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	if s.history != nil {
		return s.history(ctx, tenantID, id)
	}
	return s.MemoryStore.History(ctx, tenantID, id)
}

func (s *faulty) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	if s.swap != nil {
		return s.swap(ctx, name, old, next)
	}
	return s.MemoryStore.SwapTime(ctx, name, old, next)
}

func (s *faulty) Clock(ctx context.Context) (time.Time, error) {
	if s.clock != nil {
		return s.clock(ctx)
	}
	return time.Now().UTC(), ctx.Err()
}

// Refuse implements the optional method of a tested store.
func (s *faulty) Refuse(_ context.Context, tenantID string) error {
	s.OnChange = func(_ context.Context, changes []clerkinvite.Change) error {
		for _, c := range changes {
			if cmp.Or(c.New, c.Old).TenantID == tenantID {
				return errRefused
			}
		}
		return nil
	}
	return nil
}

var errRefused = errors.New("the database refuses the row")

// paged changes the query for a page, and the page.
func (s *faulty) paged(query func(q *clerkinvite.PageQuery), page func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member) {
	memory := s.MemoryStore
	s.page = func(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
		changed := q
		if query != nil {
			query(&changed)
		}
		list, err := memory.Page(ctx, changed)
		if page != nil {
			list = page(q, list)
		}
		return list, err
	}
}

// all returns all members, in order.
func all(memory *clerkinvitetest.MemoryStore) []*clerkinvite.Member {
	list, _ := memory.Page(context.Background(), clerkinvite.PageQuery{Limit: 1e6})
	return list
}

// each changes every member that the store takes or returns.
func (s *faulty) each(taken, returned func(m *clerkinvite.Member)) {
	memory := s.MemoryStore
	take := func(m *clerkinvite.Member) *clerkinvite.Member {
		c := *m
		if taken != nil {
			taken(&c)
		}
		return &c
	}
	give := func(results []clerkinvite.Result) []clerkinvite.Result {
		for _, r := range results {
			if r.Member != nil && returned != nil {
				returned(r.Member)
			}
		}
		return results
	}
	s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
		rows = slices.Clone(rows)
		for i := range rows {
			rows[i] = take(rows[i])
		}
		results, err := memory.Insert(ctx, rows)
		return give(results), err
	}
	s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
		changes = slices.Clone(changes)
		for i := range changes {
			if changes[i].New != nil {
				changes[i].New = take(changes[i].New)
			}
		}
		results, err := memory.Update(ctx, changes)
		return give(results), err
	}
	s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
		found, err := memory.Find(ctx, q)
		for _, m := range found {
			if returned != nil {
				returned(m)
			}
		}
		return found, err
	}
}

// faults has stores that break one rule each. The suite must find each fault.
var faults = map[string]func(s *faulty, memory *clerkinvitetest.MemoryStore){
	"duplicate without member": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			for i := range results {
				if results[i].Err != nil {
					results[i].Member = nil
				}
			}
			return results, err
		}
	},
	"duplicate ends the call": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			for _, r := range results {
				err = errors.Join(err, r.Err)
			}
			return results, err
		}
	},
	"results of Insert in another order": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			slices.Reverse(results)
			return results, err
		}
	},
	"repeated Insert is a duplicate": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			rows = slices.Clone(rows)
			for i, m := range rows {
				if found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{m.ID}}); len(found) > 0 {
					c := *m
					c.ID = "00000000-0000-7000-8000-000000000000"
					rows[i] = &c
				}
			}
			return memory.Insert(ctx, rows)
		}
	},
	"look before insert": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results := make([]clerkinvite.Result, len(rows))
			for i, m := range rows {
				found, err := memory.Find(ctx, clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}})
				if err != nil {
					return nil, err
				}
				if len(found) > 0 && found[0].ID != m.ID {
					results[i] = clerkinvite.Result{Member: found[0], Err: &clerkinvite.DuplicateEmailError{Ref: m.Ref(), Member: found[0]}}
					continue
				}
				time.Sleep(time.Millisecond)
				written, err := memory.Insert(ctx, rows[i:i+1])
				if err != nil {
					return nil, err
				}
				c := *m // like a table without a unique key
				c.Version = 1
				if results[i] = written[0]; written[0].Err != nil {
					results[i] = clerkinvite.Result{Member: &c}
				}
			}
			return results, nil
		}
	},
	"last write wins": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{c.Old.ID}}); len(found) > 0 && c.New != nil {
					changes[i].Old = found[0]
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"refused row ends the call": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for _, r := range results {
				if errors.Is(r.Err, errRefused) {
					return nil, r.Err
				}
			}
			return results, err
		}
	},
	"refused row stops the neighbours": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			for _, m := range rows {
				if s.OnChange != nil && s.OnChange(ctx, []clerkinvite.Change{{New: m}}) != nil {
					return slices.Repeat([]clerkinvite.Result{{Err: errRefused}}, len(rows)), nil
				}
			}
			return memory.Insert(ctx, rows)
		}
	},
	"conflict ends the call": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for _, r := range results {
				if errors.Is(r.Err, clerkinvite.ErrConflict) {
					return nil, r.Err
				}
			}
			return results, err
		}
	},
	"taken user of a new row is a conflict": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			for i, r := range results {
				if errors.Is(r.Err, clerkinvite.ErrUserTaken) {
					results[i] = clerkinvite.Result{Err: clerkinvite.ErrConflict}
				}
			}
			return results, err
		}
	},
	"taken user of a new row without its member": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			for i, r := range results {
				if errors.Is(r.Err, clerkinvite.ErrUserTaken) {
					results[i].Member = rows[i]
				}
			}
			return results, err
		}
	},
	"taken user stops the neighbours": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			for _, c := range changes {
				if c.New == nil {
					continue
				}
				found, _ := memory.Find(ctx, clerkinvite.Query{UserIDs: []string{c.New.ClerkUserID}})
				for _, m := range found {
					if m.TenantID == c.Old.TenantID && m.ID != c.Old.ID {
						return slices.Repeat([]clerkinvite.Result{{Err: clerkinvite.ErrUserTaken}}, len(changes)), nil
					}
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"user taken across tenants": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			for _, c := range changes {
				if c.New == nil {
					continue
				}
				found, _ := memory.Find(ctx, clerkinvite.Query{UserIDs: []string{c.New.ClerkUserID}})
				if len(found) > 0 && found[0].ID != c.Old.ID {
					return slices.Repeat([]clerkinvite.Result{{Err: clerkinvite.ErrUserTaken}}, len(changes)), nil
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"taken address stops the neighbours": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for _, r := range results {
				if errors.Is(r.Err, clerkinvite.ErrEmailTaken) {
					return nil, r.Err
				}
			}
			return results, err
		}
	},
	"taken address is a conflict": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for i, r := range results {
				if errors.Is(r.Err, clerkinvite.ErrEmailTaken) {
					results[i].Err = clerkinvite.ErrConflict
				}
			}
			return results, err
		}
	},
	"address never changes": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if c.New != nil {
					n := *c.New
					n.Email, changes[i].New = c.Old.Email, &n
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"address taken across tenants": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for i, c := range changes {
				if c.New == nil || c.New.Email == c.Old.Email || err != nil || results[i].Err != nil {
					continue
				}
				if slices.ContainsFunc(all(memory), func(m *clerkinvite.Member) bool { return m.Email == c.New.Email && m.TenantID != c.Old.TenantID }) {
					results[i] = clerkinvite.Result{Err: clerkinvite.ErrEmailTaken}
				}
			}
			return results, err
		}
	},
	"history without actors": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			for i := range moves {
				moves[i].Actor = ""
			}
			return moves, err
		}
	},
	"history has the present role": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			for i := range moves {
				moves[i].Role = moves[len(moves)-1].Role
			}
			return moves, err
		}
	},
	"release keeps the version": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(nil, func(m *clerkinvite.Member) {
			if m.Attempts > 0 && m.Status == clerkinvite.StatusReserved {
				m.Version = 1
			}
		})
	},
	"active members wait": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			for _, email := range q.Emails {
				q.Refs = append(q.Refs, clerkinvite.Ref{TenantID: "a", Email: email})
			}
			return memory.Find(ctx, q)
		}
	},
	"expired members do not wait": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			found, err := memory.Find(ctx, q)
			return slices.DeleteFunc(found, func(m *clerkinvite.Member) bool {
				return len(q.Emails) > 0 && m.Status == clerkinvite.StatusExpired
			}), err
		}
	},
	"refs by the ID of any tenant": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			for _, r := range q.Refs {
				if r.ID != "" {
					q.IDs = append(q.IDs, r.ID)
				}
			}
			return memory.Find(ctx, q)
		}
	},
	"refs by the user of any tenant": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			for _, r := range q.Refs {
				q.UserIDs = append(q.UserIDs, r.ClerkUserID)
			}
			return memory.Find(ctx, q)
		}
	},
	"refs by the user of active members only": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			q.Refs = slices.DeleteFunc(slices.Clone(q.Refs), func(r clerkinvite.Ref) bool { return clerkinvite.IsPending(r.ClerkUserID) })
			return memory.Find(ctx, q)
		}
	},
	"refs without a value name members without a user": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			found, err := memory.Find(ctx, q)
			for _, r := range q.Refs {
				if r == (clerkinvite.Ref{TenantID: r.TenantID}) {
					all, _ := memory.Page(ctx, clerkinvite.PageQuery{TenantID: r.TenantID})
					found = append(found, slices.DeleteFunc(all, func(m *clerkinvite.Member) bool { return m.ClerkUserID != "" })...)
				}
			}
			return found, err
		}
	},
	"counts of all tenants": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.counts = func(ctx context.Context, _ string) (map[clerkinvite.Status]int, error) {
			counts := make(map[clerkinvite.Status]int)
			all, err := memory.Page(ctx, clerkinvite.PageQuery{})
			for _, m := range all {
				counts[m.Status]++
			}
			return counts, err
		}
	},
	"counts up to a limit": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.counts = func(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
			counts, err := memory.Counts(ctx, tenantID)
			for status, n := range counts {
				counts[status] = min(n, 1000)
			}
			return counts, err
		}
	},
	"oldest first": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.NewestFirst = q.NewestFirst && q.TenantID == "" }, nil)
	},
	"each page newest first": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.NewestFirst = q.NewestFirst && q.TenantID == "" }, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if q.NewestFirst {
				slices.Reverse(list)
			}
			return list
		})
	},
	"newest first of all tenants": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.NewestFirst = q.NewestFirst && q.TenantID != "" }, nil)
	},
	"newest first ignores the place's tenant": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) {
			if q.NewestFirst && q.AfterID != "" {
				q.AfterTenantID = q.TenantID
			}
		}, nil)
	},
	"page ignores ExpiresBefore": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.ExpiresBefore = time.Time{} }, nil)
	},
	"page with a member that expires at the time": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) {
			if !q.ExpiresBefore.IsZero() {
				q.ExpiresBefore = q.ExpiresBefore.Add(time.Microsecond)
			}
		}, nil)
	},
	"members of any state expire": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if q.ExpiresBefore.IsZero() {
				return list
			}
			before := q.ExpiresBefore
			q.ExpiresBefore, q.Limit = time.Time{}, 1e6
			list, _ = memory.Page(context.Background(), q)
			return slices.DeleteFunc(list, func(m *clerkinvite.Member) bool { return m.ExpiresAt == nil || !m.ExpiresAt.Before(before) })
		})
	},
	"doubles": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			byID, _ := memory.Find(ctx, clerkinvite.Query{IDs: q.IDs})
			q.IDs = nil
			found, err := memory.Find(ctx, q)
			return append(byID, found...), err
		}
	},
	"due in any order": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			found, err := memory.Due(ctx, q)
			slices.Reverse(found)
			return found, err
		}
	},
	"due without turns": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			all, err := memory.Due(ctx, clerkinvite.DueQuery{At: q.At, Limit: 1e6})
			slices.SortFunc(all, func(a, b *clerkinvite.Member) int { return a.NextAttemptAt.Compare(*b.NextAttemptAt) })
			return all[:min(len(all), cmp.Or(q.Limit, 1000))], err
		}
	},
	"due from the first tenant on": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			q.AfterTenantID = ""
			return memory.Due(ctx, q)
		}
	},
	"due up to the last tenant": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			found, err := memory.Due(ctx, q)
			return slices.DeleteFunc(found, func(m *clerkinvite.Member) bool { return m.TenantID <= q.AfterTenantID }), err
		}
	},
	"due with bulk in between": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			plain, bulk := make([]*clerkinvite.Member, len(rows)), make(map[string]bool)
			for i, m := range rows {
				plain[i], bulk[m.ID] = m.Clone(), m.Bulk
				plain[i].Bulk = false
			}
			results, err := memory.Insert(ctx, plain)
			for _, r := range results {
				if r.Member != nil {
					r.Member.Bulk = bulk[r.Member.ID]
				}
			}
			return results, err
		}
	},
	"due a moment late": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			q.At = q.At.Add(-1)
			return memory.Due(ctx, q)
		}
	},
	"due without limit": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.due = func(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
			q.Limit = 1e6
			return memory.Due(ctx, q)
		}
	},
	"IDs in lower case only": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			q.IDs = slices.DeleteFunc(slices.Clone(q.IDs), func(id string) bool { return id != strings.ToLower(id) })
			return memory.Find(ctx, q)
		}
	},
	"invalid IDs are errors": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			for _, id := range q.IDs {
				if len(id) != 36 {
					return nil, errors.New("no uuid")
				}
			}
			return memory.Find(ctx, q)
		}
	},
	"last erasure wins": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{c.Old.ID}}); len(found) > 0 && c.New == nil {
					changes[i].Old = found[0]
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"an erased row is a conflict": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			gone := make(map[int]bool)
			for i, c := range changes {
				found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{c.Old.ID}})
				gone[i] = len(found) == 0
			}
			results, err := memory.Update(ctx, changes)
			for i := range results {
				if gone[i] {
					results[i] = clerkinvite.Result{Err: clerkinvite.ErrConflict}
				}
			}
			return results, err
		}
	},
	"conflict of a gone row": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for i := range results {
				if results[i].Err != nil && changes[i].New == nil {
					results[i] = clerkinvite.Result{Member: changes[i].Old}
				}
			}
			return results, err
		}
	},
	"erased without a member": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for i := range results {
				if changes[i].New == nil {
					results[i].Member = nil
				}
			}
			return results, err
		}
	},
	"erased with the next version": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			results, err := memory.Update(ctx, changes)
			for i, r := range results {
				if changes[i].New == nil && r.Member != nil {
					r.Member.Version++
				}
			}
			return results, err
		}
	},
	"erases only in a call without other changes": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			erasing := slices.IndexFunc(changes, func(c clerkinvite.Change) bool { return c.New == nil })
			changing := slices.IndexFunc(changes, func(c clerkinvite.Change) bool { return c.New != nil })
			if erasing >= 0 && changing >= 0 {
				return slices.Repeat([]clerkinvite.Result{{Err: clerkinvite.ErrConflict}}, len(changes)), nil
			}
			return memory.Update(ctx, changes)
		}
	},
	"erases a changed row": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				now, _ := memory.Find(ctx, clerkinvite.Query{Refs: []clerkinvite.Ref{c.Old.Ref()}})
				time.Sleep(time.Millisecond)
				if c.New == nil && len(now) == 1 && now[0].Version == c.Old.Version {
					// Like a DELETE that does not check the version again.
					if now, _ = memory.Find(ctx, clerkinvite.Query{Refs: []clerkinvite.Ref{c.Old.Ref()}}); len(now) == 1 {
						changes[i].Old = now[0]
					}
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"erased is removed": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			changes = slices.Clone(changes)
			for i, c := range changes {
				if c.New == nil {
					n := *c.Old
					n.Status, n.ClerkUserID, n.URL = clerkinvite.StatusRemoved, "", clerkinvite.Secret{}
					changes[i].New = &n
				}
			}
			return memory.Update(ctx, changes)
		}
	},
	"history survives": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		kept := make(map[[2]string][]clerkinvite.HistoryEntry)
		var mu sync.Mutex
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				if c.New == nil {
					kept[[2]string{c.Old.TenantID, c.Old.ID}], _ = memory.History(ctx, c.Old.TenantID, c.Old.ID)
				}
			}
			return memory.Update(ctx, changes)
		}
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			mu.Lock()
			defer mu.Unlock()
			moves, err := memory.History(ctx, tenantID, id)
			return append(slices.Clone(kept[[2]string{tenantID, id}]), moves...), err
		}
	},
	"page without order": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(_ clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			slices.Reverse(list)
			return list
		})
	},
	"page by address": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(_ clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			slices.SortStableFunc(list, func(a, b *clerkinvite.Member) int { return strings.Compare(a.Email, b.Email) })
			return list
		})
	},
	"page in the order of a locale": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, _ []*clerkinvite.Member) []*clerkinvite.Member {
			place := func(m *clerkinvite.Member) string {
				return strings.ToLower(m.TenantID) + "\x00" + m.TenantID + "\x00" + m.ID
			}
			after := place(&clerkinvite.Member{TenantID: q.AfterTenantID, ID: q.AfterID})
			everybody := q
			everybody.AfterTenantID, everybody.AfterID, everybody.Limit = "", "", 1e6
			list, _ := memory.Page(context.Background(), everybody)
			list = slices.DeleteFunc(list, func(m *clerkinvite.Member) bool { return q.AfterID != "" && place(m) <= after })
			slices.SortFunc(list, func(a, b *clerkinvite.Member) int { return strings.Compare(place(a), place(b)) })
			return list[:min(len(list), cmp.Or(q.Limit, 1000))]
		})
	},
	"page from the place on": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if again, _ := memory.Find(context.Background(), clerkinvite.Query{IDs: []string{q.AfterID}}); len(again) == 1 {
				list = append(again, list[:max(len(list)-1, 0)]...)
			}
			return list
		})
	},
	"page by numbers": func(s *faulty, memory *clerkinvitetest.MemoryStore) { // OFFSET
		read := make(map[string]int)
		s.paged(nil, func(q clerkinvite.PageQuery, _ []*clerkinvite.Member) []*clerkinvite.Member {
			everybody := q
			everybody.AfterTenantID, everybody.AfterID, everybody.Limit = "", "", 1e6
			from := read[q.AfterID]
			if q.AfterID == "" {
				from = 0
			}
			rest, _ := memory.Page(context.Background(), everybody)
			rest = rest[min(from, len(rest)):]
			page := rest[:min(len(rest), cmp.Or(q.Limit, 1000))]
			if len(page) > 0 {
				read[page[len(page)-1].ID] = from + len(page)
			}
			return page
		})
	},
	"page of one tenant only": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) {
			if q.TenantID == "" {
				q.TenantID = q.AfterTenantID
			}
		}, nil)
	},
	"page after an id of any tenant": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			return slices.DeleteFunc(list, func(m *clerkinvite.Member) bool { return m.ID <= q.AfterID })
		})
	},
	"page ignores the place's tenant": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) {
			if q.TenantID != "" && q.AfterID != "" {
				q.AfterTenantID = q.TenantID
			}
		}, nil)
	},
	"page without limit": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.Limit = 1e6 }, nil)
	},
	"page of another usual limit": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.Limit = cmp.Or(q.Limit, 100) }, nil)
	},
	"page filters after the limit": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.InvitedBy = "" }, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			return slices.DeleteFunc(list, func(m *clerkinvite.Member) bool { return q.InvitedBy != "" && m.InvitedBy != q.InvitedBy })
		})
	},
	"page ignores InvitedBy": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.InvitedBy = "" }, nil)
	},
	"page ignores Statuses": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.Statuses = nil }, nil)
	},
	"page ignores EmailPrefix": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.EmailPrefix = "" }, nil)
	},
	"page ignores TenantID": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.TenantID = "" }, nil)
	},
	"page by any filter": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if q.InvitedBy == "" || q.EmailPrefix == "" {
				return list
			}
			q.EmailPrefix = ""
			list, _ = memory.Page(context.Background(), q)
			return list
		})
	},
	"one status only": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) { q.Statuses = q.Statuses[:min(1, len(q.Statuses))] }, nil)
	},
	"page with duplicates for repeated statuses": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if len(slices.Compact(slices.Sorted(slices.Values(q.Statuses)))) == len(q.Statuses) {
				return list
			}
			list = slices.Repeat(list, 2)
			slices.SortStableFunc(list, func(a, b *clerkinvite.Member) int { return strings.Compare(a.TenantID+a.ID, b.TenantID+b.ID) })
			return list[:min(len(list), cmp.Or(q.Limit, 1000))]
		})
	},
	"prefix is a pattern": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if !strings.ContainsAny(q.EmailPrefix, "%_") || !utf8.ValidString(q.EmailPrefix) {
				return list
			}
			like := regexp.MustCompile("^" + strings.NewReplacer("%", ".*", "_", ".").Replace(regexp.QuoteMeta(q.EmailPrefix)))
			return slices.DeleteFunc(all(memory), func(m *clerkinvite.Member) bool { return !like.MatchString(m.Email) })
		})
	},
	"prefix of ASCII only": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(func(q *clerkinvite.PageQuery) {
			if i := strings.IndexFunc(q.EmailPrefix, func(r rune) bool { return r > 0x7f }); i >= 0 {
				q.EmailPrefix = q.EmailPrefix[:i]
			}
		}, nil)
	},
	"prefix up to the halves of surrogates": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			return slices.DeleteFunc(list, func(*clerkinvite.Member) bool { return strings.HasSuffix(q.EmailPrefix, "\ud7ff") })
		})
	},
	"prefix anywhere": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.paged(nil, func(q clerkinvite.PageQuery, list []*clerkinvite.Member) []*clerkinvite.Member {
			if q.EmailPrefix == "" || !utf8.ValidString(q.EmailPrefix) {
				return list
			}
			return slices.DeleteFunc(all(memory), func(m *clerkinvite.Member) bool { return !strings.Contains(m.Email, q.EmailPrefix) })
		})
	},
	"invalid filters are errors": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.page = func(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
			if !utf8.ValidString(q.TenantID + q.EmailPrefix + q.InvitedBy) {
				return nil, errors.New("no text")
			}
			return memory.Page(ctx, q)
		}
	},
	"an invalid place is the end": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.page = func(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
			found, err := memory.Page(ctx, q)
			if ctx.Err() == nil {
				err = nil
			}
			return found, err
		}
	},
	"history of claims": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			if found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{id}}); len(found) == 1 && found[0].Attempts > 0 {
				moves = append(moves, clerkinvite.HistoryEntry{Version: found[0].Version, To: found[0].Status, At: found[0].UpdatedAt})
			}
			return moves, err
		}
	},
	"history of states only": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			return slices.DeleteFunc(moves, func(m clerkinvite.HistoryEntry) bool { return m.From == m.To }), err
		}
	},
	"history backwards": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			slices.Reverse(moves)
			return moves, err
		}
	},
	"history in the order of digits": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			slices.SortFunc(moves, func(a, b clerkinvite.HistoryEntry) int {
				return strings.Compare(strconv.FormatInt(a.Version, 10), strconv.FormatInt(b.Version, 10))
			})
			return moves, err
		}
	},
	"history of all tenants": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, _, id string) (moves []clerkinvite.HistoryEntry, err error) {
			found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{id}})
			for _, m := range found {
				list, _ := memory.History(ctx, m.TenantID, id)
				moves = append(moves, list...)
			}
			return moves, ctx.Err()
		}
	},
	"history without the beginning": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			return moves[min(1, len(moves)):], err
		}
	},
	"history without the reason": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			for i := range moves {
				moves[i].Reason = ""
			}
			return moves, err
		}
	},
	"the history of an unknown member is an error": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.history = func(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
			moves, err := memory.History(ctx, tenantID, id)
			if len(moves) == 0 {
				err = errors.Join(err, errors.New("unknown member"))
			}
			return moves, err
		}
	},
	"clock: of the start of a transaction": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		at := time.Now().UTC()
		s.clock = func(ctx context.Context) (time.Time, error) { return at, ctx.Err() }
	},
	"clock: in seconds": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.clock = func(ctx context.Context) (time.Time, error) { return time.Now().UTC().Truncate(time.Second), ctx.Err() }
	},
	"clock: twice as fast": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		began := time.Now()
		s.clock = func(ctx context.Context) (time.Time, error) { return began.Add(2 * time.Since(began)).UTC(), ctx.Err() }
	},
	"clock: goes back": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		var reads atomic.Int64
		s.clock = func(ctx context.Context) (time.Time, error) {
			return time.Now().UTC().Add(-time.Duration(reads.Add(1)%10) * time.Millisecond), ctx.Err()
		}
	},
	"clock: in another zone": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.clock = func(ctx context.Context) (time.Time, error) {
			return time.Now().In(time.FixedZone("", 3600)), ctx.Err()
		}
	},
	"clock: sometimes none": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		var reads atomic.Int64
		s.clock = func(ctx context.Context) (time.Time, error) {
			if reads.Add(1)%2 == 1 {
				return time.Time{}, ctx.Err()
			}
			return time.Now().UTC(), ctx.Err()
		}
	},
	"clock: ignores the end of the context": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.clock = func(context.Context) (time.Time, error) { return time.Now().UTC(), nil }
	},
	"swap time: the last one wins": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			if known, err := memory.SwapTime(ctx, name, time.Time{}, time.Time{}); err == nil && !next.IsZero() && !next.Equal(old) {
				old = known
			}
			return memory.SwapTime(ctx, name, old, next)
		}
	},
	"swap time: never back": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			if next.Before(old) {
				next = old
			}
			return memory.SwapTime(ctx, name, old, next)
		}
	},
	"swap time: asking writes": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			if next.Equal(old) {
				old = time.Time{}
			}
			return memory.SwapTime(ctx, name, old, next)
		}
	},
	"swap time: the loser does not get the time": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			known, err := memory.SwapTime(ctx, name, old, next)
			if !next.IsZero() && !known.Equal(next) {
				known = old
			}
			return known, err
		}
	},
	"swap time: reads and then writes": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			known, err := memory.SwapTime(ctx, name, time.Time{}, time.Time{})
			if err != nil || next.Equal(old) || known.Sub(old).Abs() >= time.Microsecond {
				return known, err
			}
			time.Sleep(time.Millisecond)
			for !known.Equal(next.Truncate(time.Microsecond)) && err == nil {
				known, err = memory.SwapTime(ctx, name, known, next)
			}
			return known, err
		}
	},
	"swap time: a repetition is an error": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			before, _ := memory.SwapTime(ctx, name, time.Time{}, time.Time{})
			known, err := memory.SwapTime(ctx, name, old, next)
			if before.Equal(next) && !next.Equal(old) {
				err = errors.Join(err, errors.New("made already"))
			}
			return known, err
		}
	},
	"swap time: one for all": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, _ string, old, next time.Time) (time.Time, error) {
			return memory.SwapTime(ctx, "", old, next)
		}
	},
	"swap time: names without case": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			return memory.SwapTime(ctx, strings.ToLower(name), old, next)
		}
	},
	"swap time: milliseconds": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			return memory.SwapTime(ctx, name, old.Truncate(time.Millisecond), next.Truncate(time.Millisecond))
		}
	},
	"swap time: nanoseconds": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		var mu sync.Mutex
		times := make(map[string]time.Time)
		s.swap = func(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() == nil && !next.IsZero() && times[name].Equal(old) {
				times[name] = next.UTC()
			}
			return times[name], ctx.Err()
		}
	},
	"ignores its context": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			return memory.Update(context.WithoutCancel(ctx), changes)
		}
	},
	"milliseconds": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) { m.UpdatedAt = m.UpdatedAt.Truncate(time.Millisecond) }, nil)
	},
	"nanoseconds": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			results, err := memory.Insert(ctx, rows)
			for i, r := range results {
				if r.Err == nil {
					r.Member.UpdatedAt = rows[i].UpdatedAt.UTC()
				}
			}
			return results, err
		}
	},
	"local time": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(nil, func(m *clerkinvite.Member) { m.UpdatedAt = m.UpdatedAt.In(time.FixedZone("", 3600)) })
	},
	"reformatted Params": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) {
			var b bytes.Buffer
			if json.Compact(&b, m.Params) == nil && b.Len() > 0 {
				m.Params = b.Bytes()
			}
		}, nil)
	},
	"Data through float64": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) {
			var v any
			if json.Unmarshal(m.Data, &v) == nil {
				m.Data, _ = json.Marshal(v)
			}
		}, nil)
	},
	"null is nothing": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) {
			if string(m.Data) == "null" {
				m.Data = nil
			}
		}, nil)
	},
	"tenants without case": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) { m.TenantID = strings.ToLower(m.TenantID) }, nil)
	},
	"forgets the claim": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.each(func(m *clerkinvite.Member) { m.ClaimedUntil = nil }, nil)
	},
	"shared bytes": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		shared := make(map[string]json.RawMessage)
		s.insert = func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
			for _, m := range rows {
				if len(rows) == 1 {
					shared[m.ID] = m.Params
				}
			}
			return memory.Insert(ctx, rows)
		}
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			found, err := memory.Find(ctx, q)
			for _, m := range found {
				if p, ok := shared[m.ID]; ok && m.Version == 1 {
					m.Params = p
				}
			}
			return found, err
		}
	},
}

// A store with a fault does not pass. Each runs in its own process, because the suite must fail.
func TestFaults(t *testing.T) {
	t.Parallel()
	if name := os.Getenv("STORETEST_FAULT"); name != "" {
		storetest.Run(t, func(*testing.T) clerkinvite.Store {
			s := &faulty{MemoryStore: clerkinvitetest.NewMemoryStore()}
			if fault := faults[name]; fault != nil {
				fault(s, s.MemoryStore)
			}
			return s
		})
		return
	}
	first := testkit.Random(t).IntN(10)
	for i, name := range slices.Sorted(maps.Keys(faults)) {
		if raceDetector && i%10 != first {
			continue // each takes seconds, and the race detector finds nothing: run a random tenth
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, failed := run(t, name); !failed {
				t.Errorf("the suite did not find it:\n%s", out)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		if out, failed := run(t, "none"); failed {
			t.Errorf("a correct store failed:\n%s", out)
		}
	})
}

// slots limits the number of processes, so that they do not starve each other or the tests of other packages.
var slots = make(chan struct{}, runtime.NumCPU())

// run runs the suite on a store with the named fault.
func run(t *testing.T, fault string) (out string, failed bool) {
	t.Helper()
	slots <- struct{}{}
	defer func() { <-slots }()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFaults$", "-test.short")
	cmd.Env = append(os.Environ(), "STORETEST_FAULT="+fault)
	b, err := cmd.CombinedOutput()
	if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("panic:")) {
		t.Errorf("the suite panicked instead of reporting:\n%s", b)
	}
	return string(b), err != nil
}
