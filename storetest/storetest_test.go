package storetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// faulty is a store with one fault: a correct one with some of its methods replaced.
type faulty struct {
	*clerkinvitetest.MemoryStore

	insert func(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error)
	update func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error)
	find   func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error)
	gate   func(ctx context.Context, endpoint string, until time.Time) (time.Time, error)
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

func (s *faulty) Gate(ctx context.Context, endpoint string, until time.Time) (time.Time, error) {
	if s.gate != nil {
		return s.gate(ctx, endpoint, until)
	}
	return s.MemoryStore.Gate(ctx, endpoint, until)
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
			changes[i].New = take(changes[i].New)
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

// faults are the ways in which a store can be wrong. Each must be found.
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
				c := *m // as a table without a unique key would have it
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
				if found, _ := memory.Find(ctx, clerkinvite.Query{IDs: []string{c.Old.ID}}); len(found) > 0 {
					changes[i].Old = found[0]
				}
			}
			return memory.Update(ctx, changes)
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
	"taken user stops the neighbours": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.update = func(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
			for _, c := range changes {
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
				found, _ := memory.Find(ctx, clerkinvite.Query{UserIDs: []string{c.New.ClerkUserID}})
				if len(found) > 0 && found[0].ID != c.Old.ID {
					return slices.Repeat([]clerkinvite.Result{{Err: clerkinvite.ErrUserTaken}}, len(changes)), nil
				}
			}
			return memory.Update(ctx, changes)
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
	"doubles": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			byID, _ := memory.Find(ctx, clerkinvite.Query{IDs: q.IDs})
			q.IDs = nil
			found, err := memory.Find(ctx, q)
			return append(byID, found...), err
		}
	},
	"due in any order": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			found, err := memory.Find(ctx, q)
			slices.Reverse(found)
			return found, err
		}
	},
	"due a moment late": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			if !q.DueAt.IsZero() {
				q.DueAt = q.DueAt.Add(-1)
			}
			return memory.Find(ctx, q)
		}
	},
	"no limit": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			q.Limit = 1e6
			return memory.Find(ctx, q)
		}
	},
	"ids in lower case only": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			q.IDs = slices.DeleteFunc(slices.Clone(q.IDs), func(id string) bool { return id != strings.ToLower(id) })
			return memory.Find(ctx, q)
		}
	},
	"odd ids are errors": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.find = func(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
			for _, id := range q.IDs {
				if len(id) != 36 {
					return nil, errors.New("no uuid")
				}
			}
			return memory.Find(ctx, q)
		}
	},
	"gate goes back": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
		s.gate = func(_ context.Context, _ string, until time.Time) (time.Time, error) { return until, nil }
	},
	"gate of all endpoints": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
		s.gate = func(ctx context.Context, _ string, until time.Time) (time.Time, error) {
			return memory.Gate(ctx, "", until)
		}
	},
	"deaf to its context": func(s *faulty, memory *clerkinvitetest.MemoryStore) {
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
	"forgetful of the claim": func(s *faulty, _ *clerkinvitetest.MemoryStore) {
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

// TestFaults: a store with a fault does not pass. Each runs in a process of its own, because it is meant to fail.
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
	for name := range faults {
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

// run runs the suite on a store with the named fault.
func run(t *testing.T, fault string) (out string, failed bool) {
	t.Helper()
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
