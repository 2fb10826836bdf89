package modeltest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// model_test.go runs the model of the unchanged library.
// These tests are for the model itself.

func TestRepeatable(t *testing.T) {
	t.Parallel()
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		once := playAlone(t, clerkinvitetest.NewMemoryStore(), seed, (&Options{}).complete())
		again := playAlone(t, clerkinvitetest.NewMemoryStore(), seed, (&Options{}).complete())
		require.Equal(t, once.log.String(), again.log.String(), "seed %d", seed)
		require.NotEmpty(t, once.log.String())
	}
}

func TestOptions(t *testing.T) {
	t.Setenv("CLERKINVITE_MODEL_SEQUENCES", "")
	t.Setenv("CLERKINVITE_SEED", "")
	o := (*Options)(nil).complete()
	require.Equal(t, 1000, o.Sequences)
	require.NotZero(t, o.Seed)
	require.NotEqual(t, o.Seed, (*Options)(nil).complete().Seed)

	t.Setenv("CLERKINVITE_MODEL_SEQUENCES", "7")
	t.Setenv("CLERKINVITE_SEED", "12")
	o = (&Options{Sequences: 3, Seed: 4, Steps: 5}).complete()
	require.Equal(t, Options{Sequences: 7, Seed: 12, Steps: 5}, o)
}

// wrong is a component that breaks a promise. The model must detect each.
type wrong struct {
	store func(*clerkinvitetest.MemoryStore) clerkinvite.Store
	api   func(clerkinvite.ClerkAPI) clerkinvite.ClerkAPI
	found []string // possible beginnings of the problem's text
}

func TestFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: make test-all has what takes long")
	}
	for name, w := range map[string]wrong{
		"store ignores the compare-and-swap": {
			store: updating(func(s *wrongStore, changes []clerkinvite.Change) {
				for i, c := range changes {
					if now, _ := s.Find(context.Background(), clerkinvite.Query{IDs: []string{c.Old.ID}}); len(now) > 0 {
						old := *c.Old
						old.Version = now[0].Version
						changes[i].Old = &old
					}
				}
			}),
			found: []string{"store:", "claim:", "send:"},
		},
		"store loses an update": {
			store: updated(func(s *wrongStore, _ []clerkinvite.Change) bool { return s.count%20 == 0 }),
			found: []string{"store:"},
		},
		"store makes a member active": {
			store: updating(func(_ *wrongStore, changes []clerkinvite.Change) {
				for _, c := range changes {
					if c.New != nil && c.New.Status == clerkinvite.StatusPending {
						c.New.Status, c.New.ClerkUserID, c.New.URL = clerkinvite.StatusActive, "user_000001", clerkinvite.Secret{}
					}
				}
			}),
			found: []string{"proof:"},
		},
		"store rolls a send back": {
			store: updating(func(_ *wrongStore, changes []clerkinvite.Change) {
				for _, c := range changes {
					if c.New != nil && c.New.Send > 1 {
						c.New.Send, c.New.Sent = 1, min(c.New.Sent, 0)
						c.New.NextAttemptAt = &c.New.UpdatedAt
					}
				}
			}),
			found: []string{"send:", "store:"},
		},
		"store keeps links": {
			store: updating(func(_ *wrongStore, changes []clerkinvite.Change) {
				for _, c := range changes {
					if c.New != nil && c.New.Status == clerkinvite.StatusPending {
						c.New.URL = clerkinvite.NewSecret("https://clerk.example.test/ticket")
					}
				}
			}),
			found: []string{"url:", "store:"},
		},
		"store revives revoked members": {
			store: updating(func(_ *wrongStore, changes []clerkinvite.Change) {
				for _, c := range changes {
					if c.New != nil && c.New.Status == clerkinvite.StatusReserved && c.Old.Status == clerkinvite.StatusRevoked {
						c.New.Status, c.New.Sent = clerkinvite.StatusFailed, c.New.Send
					}
				}
			}),
			found: []string{"move:", "store:"},
		},
		"store erases removed members": {
			store: updating(func(_ *wrongStore, changes []clerkinvite.Change) {
				for i, c := range changes {
					if c.New != nil && c.New.Status == clerkinvite.StatusRemoved {
						changes[i].New = nil
					}
				}
			}),
			found: []string{"erased:", "store:"},
		},
		"store loses history": {
			store: func(m *clerkinvitetest.MemoryStore) clerkinvite.Store { return &forgetful{m} },
			found: []string{"history:"},
		},
		"store hides due members": {
			store: func(m *clerkinvitetest.MemoryStore) clerkinvite.Store { return &blind{m} },
			found: []string{"end:"},
		},
		"store forgets limits": {
			store: func(m *clerkinvitetest.MemoryStore) clerkinvite.Store { return &open{m} },
			found: []string{"limit:"},
		},
		"a create is sent twice": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.CreateInvitationFunc = func(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
					inv, err := api.CreateInvitation(ctx, r)
					if err == nil {
						r.IgnoreExisting = true
						inv, err = api.CreateInvitation(ctx, r)
					}
					return inv, err
				}
				return f
			},
			found: []string{"two invitations:"},
		},
		"a refusal counts as an invitation": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.CreateInvitationFunc = func(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
					inv, err := api.CreateInvitation(ctx, r)
					if err != nil {
						list, _ := api.ListInvitations(ctx, clerkinvite.InvitationQuery{Query: r.Email, Status: clerkinvite.InvitationPending})
						if len(list) > 0 {
							return &list[0], nil
						}
					}
					return inv, err
				}
				return f
			},
			found: []string{"invitation:"},
		},
		"invitations have no marker": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.CreateInvitationFunc = func(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
					r.PublicMetadata = json.RawMessage(`{}`)
					return api.CreateInvitation(ctx, r)
				}
				return f
			},
			found: []string{"invitation:"},
		},
		"every address counts as verified": {
			api: seeing(func(u *clerkinvite.User) {
				for i := range u.Emails {
					u.Emails[i].Verified = true
				}
			}),
			found: []string{"proof:", "failed:"},
		},
		"no user counts as banned": {
			api:   seeing(func(u *clerkinvite.User) { u.Banned = false }),
			found: []string{"proof:", "removed:"},
		},
		"no address counts as verified": {
			api: seeing(func(u *clerkinvite.User) {
				for i := range u.Emails {
					u.Emails[i].Verified = false
				}
			}),
			found: []string{"end:"},
		},
		"revoking does nothing": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.RevokeInvitationFunc = func(_ context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
					return &clerkinvite.Invitation{ID: r.ID, Status: clerkinvite.InvitationRevoked}, nil
				}
				return f
			},
			found: []string{"withdrawn:", "end:"},
		},
		"revoking revokes other invitations, too": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.RevokeInvitationFunc = func(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
					list, _ := api.ListInvitations(ctx, clerkinvite.InvitationQuery{Status: clerkinvite.InvitationPending})
					for _, inv := range list {
						_, _ = api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: inv.ID})
					}
					return api.RevokeInvitation(ctx, r)
				}
				return f
			},
			found: []string{"dead link:", "end:"},
		},
		"lists are empty": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.ListInvitationsFunc = func(context.Context, clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) { return nil, nil }
				return f
			},
			found: []string{"end:", "unnoticed:", "withdrawn:", "two invitations:", "failed:"},
		},
		"every user counts as a member of the organization": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.FindMembershipsFunc = func(_ context.Context, q clerkinvite.MembershipQuery) (all []clerkinvite.Membership, _ error) {
					for _, id := range q.UserIDs {
						all = append(all, clerkinvite.Membership{OrganizationID: q.OrganizationID, UserID: id})
					}
					return all, nil
				}
				return f
			},
			found: []string{"proof:"},
		},
		"no user counts as a member of the organization": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.FindMembershipsFunc = func(context.Context, clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) { return nil, nil }
				return f
			},
			found: []string{"end:", "removed:", "failed:"},
		},
		"ending a membership does nothing": {
			api: func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
				f := funcs(api)
				f.RemoveMemberFunc = func(context.Context, clerkinvite.Membership) error { return nil }
				return f
			},
			found: []string{"membership:"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := (&Options{Seed: 1, Sequences: 1, api: w.api}).complete()
			for seed := range uint64(3000) {
				memory := clerkinvitetest.NewMemoryStore()
				store := clerkinvite.Store(memory)
				if w.store != nil {
					store = w.store(memory)
				}
				s := playAlone(t, store, 1+seed, o)
				if s.problem == "" {
					continue
				}
				t.Logf("found by sequence %d, in step %d: %s", seed+1, s.step, s.problem)
				require.True(t, slices.ContainsFunc(w.found, func(p string) bool { return strings.HasPrefix(s.problem, p) }), s.problem)
				return
			}
			t.Error("not found")
		})
	}
}

// wrongStore is a store with a different Update.
type wrongStore struct {
	*clerkinvitetest.MemoryStore

	mu     sync.Mutex
	count  int
	update func(s *wrongStore, changes []clerkinvite.Change) bool // reports whether to omit the update
}

func (s *wrongStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	results := make([]clerkinvite.Result, len(changes))
	changes = slices.Clone(changes)
	for i, c := range changes {
		if c.New != nil {
			next := *c.New
			changes[i].New = &next
			written := next
			written.Version = c.Old.Version + 1
			results[i].Member = &written
		}
	}
	if s.update(s, changes) {
		return results, nil
	}
	return s.MemoryStore.Update(ctx, changes)
}

// updating returns stores that change updates before they are written.
func updating(change func(s *wrongStore, changes []clerkinvite.Change)) func(*clerkinvitetest.MemoryStore) clerkinvite.Store {
	return updated(func(s *wrongStore, changes []clerkinvite.Change) bool {
		change(s, changes)
		return false
	})
}

// updated returns stores that may omit an update.
func updated(update func(s *wrongStore, changes []clerkinvite.Change) bool) func(*clerkinvitetest.MemoryStore) clerkinvite.Store {
	return func(m *clerkinvitetest.MemoryStore) clerkinvite.Store {
		return &wrongStore{MemoryStore: m, update: update}
	}
}

// forgetful is a store that loses the latest history entry of every member with two state changes.
type forgetful struct{ *clerkinvitetest.MemoryStore }

func (s *forgetful) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	moves, err := s.MemoryStore.History(ctx, tenantID, id)
	if len(moves) > 2 {
		moves = moves[:len(moves)-1]
	}
	return moves, err
}

// blind is a store that does not find resends that are due.
type blind struct{ *clerkinvitetest.MemoryStore }

func (s *blind) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	found, err := s.MemoryStore.Due(ctx, q)
	return slices.DeleteFunc(found, func(m *clerkinvite.Member) bool { return m.Status == clerkinvite.StatusPending }), err
}

// open is a store that never shows a limit.
type open struct{ *clerkinvitetest.MemoryStore }

func (s *open) SwapTime(_ context.Context, _ string, old, next time.Time) (time.Time, error) {
	if next.Equal(old) {
		return time.Time{}, nil
	}
	return next, nil
}

// funcs returns an API that calls the given one.
func funcs(api clerkinvite.ClerkAPI) *clerkinvitetest.ClerkFuncs {
	organizations := api.(clerkinvite.OrganizationAPI)
	return &clerkinvitetest.ClerkFuncs{
		FindMembershipsFunc: organizations.FindMemberships, AddMemberFunc: organizations.AddMember, RemoveMemberFunc: organizations.RemoveMember,
		FindUsersFunc: api.FindUsers, GetUserFunc: api.GetUser, CreateInvitationFunc: api.CreateInvitation, CreateInvitationsFunc: api.CreateInvitations,
		ListInvitationsFunc: api.ListInvitations, RevokeInvitationFunc: api.RevokeInvitation,
	}
}

// seeing returns APIs that return changed users.
func seeing(change func(u *clerkinvite.User)) func(clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
	return func(api clerkinvite.ClerkAPI) clerkinvite.ClerkAPI {
		f := funcs(api)
		f.FindUsersFunc = func(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
			users, err := api.FindUsers(ctx, q)
			for i := range users {
				change(&users[i])
			}
			return users, err
		}
		f.GetUserFunc = func(ctx context.Context, id string) (*clerkinvite.User, error) {
			u, err := api.GetUser(ctx, id)
			if err == nil {
				change(u)
			}
			return u, err
		}
		return f
	}
}

// An open invitation of an erased member is a problem, except if Purge could not find it.
func TestStrayInvitationOfAnErasedMember(t *testing.T) {
	t.Parallel()
	const before, after = "ada@example.com", "bob@example.com"
	row := func(number int64, email, invitationID string) *clerkinvite.Member {
		return &clerkinvite.Member{ID: "m", Version: number, Send: 1, Email: email, InvitationID: invitationID}
	}
	for name, c := range map[string]struct {
		history []*clerkinvite.Member
		listed  []string
		made    int
		excused bool
	}{
		"the response was lost, and the address has changed": {[]*clerkinvite.Member{row(1, before, ""), row(2, after, "")}, []string{after}, 1, true},
		"its create was under way":                           {[]*clerkinvite.Member{row(1, before, "inv_1")}, []string{before}, 5, true},
		"the address has not changed":                        {[]*clerkinvite.Member{row(1, before, "")}, []string{before}, 1, false},
		"the address has changed during the purge":           {[]*clerkinvite.Member{row(1, before, ""), row(2, after, "")}, []string{after, before}, 1, false},
		"it was left over, and the address has changed":      {[]*clerkinvite.Member{row(1, before, "inv_1"), row(2, after, "inv_2")}, []string{after}, 1, true},
		"the row refers to it":                               {[]*clerkinvite.Member{row(1, before, "inv_1"), row(2, after, "inv_1")}, []string{after}, 1, false},
		"the member never had the address":                   {[]*clerkinvite.Member{row(1, after, "")}, []string{after}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &sequence{}
			s.makeOracle()
			for _, m := range c.history {
				s.committed[version{m.ID, m.Version}] = m
			}
			s.counted["inv_1"] = c.made
			s.purged["m"] = purged{ref: clerkinvite.Ref{Email: after}, since: 5, done: 6, listed: c.listed}
			s.stray(&invitation{Invitation: clerkinvite.Invitation{ID: "inv_1", Email: before, Status: clerkinvite.InvitationPending}, member: "m", send: 1})
			require.Equal(t, c.excused, s.problem == "", s.problem)
		})
	}
}
