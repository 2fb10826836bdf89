package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// organizationScene is a verb for an organization, and what must be true once it is complete.
type organizationScene struct {
	name   string
	calls  []clerkinvitetest.Call                   // that it makes
	before func(t *testing.T, b *testkit.Rig)       // without faults
	act    func(t *testing.T, b *testkit.Rig) error // returns nil once the verb is complete
	worker bool                                     // Deliver completes it, too
	after  func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member)
}

// unlessDone returns nil if the error says that the invitation is complete.
func unlessDone(err error) error {
	var dup *clerkinvite.DuplicateEmailError
	var cooldown *clerkinvite.CooldownError
	if errors.As(err, &dup) && !dup.Member.Due() || errors.As(err, &cooldown) {
		return nil
	}
	return err
}

func organizationScenes() []organizationScene {
	const email = "ada@example.com"
	invite := func(t *testing.T, b *testkit.Rig) error {
		t.Helper()
		_, err := b.TryInvite(t, email)
		return unlessDone(err)
	}
	add := func(t *testing.T, b *testkit.Rig) error {
		t.Helper()
		_, err := b.InviteInto(t, email, clerkinvite.Organization{AddExisting: true})
		return unlessDone(err)
	}
	invitedOnce := func(t *testing.T, b *testkit.Rig, _ *clerkinvite.Member) {
		t.Helper()
		b.RequireInvited(t, email, 1)
		b.RequireMembersAtClerk(t)
	}
	isUser := func(_ *testing.T, b *testkit.Rig) { b.Clerk.AddVerifiedUser(email) }
	lostCreate := func(when clerkinvitetest.When) func(t *testing.T, b *testkit.Rig) {
		return func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: when, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, email)
			require.Error(t, err)
			b.Clerk.Settle()
			b.Clock.Advance(2 * time.Hour)
		}
	}
	pending := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		b.MustInvite(t, email)
		b.Clerk.Settle()
		b.Clock.Advance(2 * time.Hour)
	}
	accepted := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		pending(t, b)
		u := b.Clerk.AddVerifiedUser(email)
		require.NoError(t, b.Clerk.AcceptOrganization(b.Member(t, email).InvitationID, u.ID))
		b.Clerk.Settle()
	}
	active := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		isUser(t, b)
		require.NoError(t, add(t, b))
		b.Clerk.Settle()
	}
	remove := func(t *testing.T, b *testkit.Rig) error {
		t.Helper()
		_, err := b.Remove(t.Context(), testkit.Ada)
		return err
	}
	removed := func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
		t.Helper()
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
		b.RequireMembersAtClerk(t)
		require.Empty(t, b.Clerk.OpenInvitations(email))
	}
	return []organizationScene{{
		name: "invite", worker: true, act: invite, after: invitedOnce, before: func(*testing.T, *testkit.Rig) {},
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallOrganizationCreate},
	}, {
		name: "ask a user", worker: true, act: invite, after: invitedOnce, before: isUser,
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallMemberships, clerkinvitetest.CallOrganizationCreate},
	}, {
		name: "invite after a lost create", worker: true, act: invite, after: invitedOnce, before: lostCreate(clerkinvitetest.After),
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallOrganizationList},
	}, {
		name: "invite after a create that never arrived", worker: true, act: invite, after: invitedOnce, before: lostCreate(clerkinvitetest.Before),
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationCreate},
	}, {
		name: "add a user", worker: true, act: add, before: isUser,
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallMemberships, clerkinvitetest.CallAddMember},
		after: func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
			t.Helper()
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			b.RequireMembersAtClerk(t, m.ClerkUserID)
			require.Zero(t, b.Clerk.EmailsTo(email))
			require.Empty(t, b.Clerk.OpenInvitations(email))
		},
	}, {
		name: "resend", worker: true, before: pending,
		calls: []clerkinvitetest.Call{clerkinvitetest.CallFindUsers, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationRevoke, clerkinvitetest.CallOrganizationCreate},
		act: func(t *testing.T, b *testkit.Rig) error {
			t.Helper()
			if b.Member(t, email).Sent == 2 {
				return nil
			}
			_, err := b.Resend(t.Context(), testkit.Ada)
			return err
		},
		after: func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
			t.Helper()
			require.Equal(t, 2, m.Send)
			b.RequireInvited(t, email, 2)
		},
	}, {
		name: "revoke", before: pending, calls: []clerkinvitetest.Call{clerkinvitetest.CallOrganizationRevoke},
		act: func(t *testing.T, b *testkit.Rig) error {
			t.Helper()
			_, err := b.Revoke(t.Context(), testkit.Ada)
			return err
		},
		after: func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
			t.Helper()
			require.Equal(t, clerkinvite.StatusRevoked, m.Status)
			require.Empty(t, b.Clerk.OpenInvitations(email))
		},
	}, {
		name: "revoke after acceptance", before: accepted,
		calls: []clerkinvitetest.Call{clerkinvitetest.CallOrganizationRevoke, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallFindUsers, clerkinvitetest.CallMemberships},
		act: func(t *testing.T, b *testkit.Rig) error {
			t.Helper()
			_, err := b.Revoke(t.Context(), testkit.Ada)
			var refused *clerkinvite.TransitionError
			if errors.As(err, &refused) {
				return nil
			}
			return errors.Join(err, errors.New("not refused"))
		},
		after: func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
			t.Helper()
			require.Equal(t, clerkinvite.StatusActive, m.Status)
			b.RequireMembersAtClerk(t, m.ClerkUserID)
		},
	}, {
		name: "remove a pending member", before: pending, act: remove, after: removed, calls: []clerkinvitetest.Call{clerkinvitetest.CallOrganizationRevoke},
	}, {
		name: "remove after acceptance", before: accepted, act: remove, after: removed,
		calls: []clerkinvitetest.Call{
			clerkinvitetest.CallOrganizationRevoke, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallFindUsers, clerkinvitetest.CallMemberships,
			clerkinvitetest.CallRemoveMember,
		},
	}, {
		name: "remove an active member", before: active, act: remove, after: removed, calls: []clerkinvitetest.Call{clerkinvitetest.CallRemoveMember},
	}}
}

// run calls the verb, and then it or Deliver again until it is complete.
func (s organizationScene) run(t *testing.T, b *testkit.Rig, deliver bool) (failed bool) {
	t.Helper()
	err := s.act(t, b)
	failed = err != nil
	for n := 0; n < 8 && (err != nil || b.Member(t, "ada@example.com").Due()); n++ {
		b.Clerk.Settle()
		b.Clock.Advance(2 * time.Hour)
		if deliver && s.worker && b.Member(t, "ada@example.com").Due() {
			_, err = b.Deliver(t.Context(), nil)
		} else {
			err = s.act(t, b)
		}
	}
	require.NoError(t, err)
	m := b.Member(t, "ada@example.com")
	require.False(t, m.Due())
	b.Clerk.Settle()
	s.after(t, b, m)
	return failed
}

// Whatever response is lost, one email is sent per send, one invitation is open, and the membership is as the member says.
func TestPromise3_OrganizationLostResponses(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, s := range organizationScenes() {
			for _, call := range s.calls {
				for _, fault := range testkit.Sample(t, testkit.Faults(call)) {
					for _, deliver := range []bool{false, true} {
						if deliver && !s.worker {
							continue
						}
						t.Run(fmt.Sprintf("%s/%s %s/deliver %v", s.name, call, testkit.FaultName(fault), deliver), func(t *testing.T) {
							t.Parallel()
							testkit.InBubble(t, func(t *testing.T) {
								b := fresh(t, testkit.Options{Organization: org, Hangs: fault.Kind == clerkinvitetest.Timeout})
								s.before(t, b)
								b.Clerk.ResetCounts()
								b.Clerk.Fail(fault)
								s.run(t, b, deliver)
								require.Positive(t, b.Clerk.Requests()[call], "the call is made")
							})
						})
					}
				}
			}
		}
	})
}

// The response to a bulk request is lost in every way, before and after it took effect.
func TestPromise3_OrganizationLostBulkResponses(t *testing.T) {
	t.Parallel()
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		for _, fault := range testkit.Sample(t, testkit.Faults(clerkinvitetest.CallOrganizationCreateBulk)) {
			t.Run(testkit.FaultName(fault), func(t *testing.T) {
				t.Parallel()
				testkit.InBubble(t, func(t *testing.T) {
					b := fresh(t, testkit.Options{Organization: org, Hangs: true})
					b.Clerk.Fail(fault)
					ps := testkit.People(25, "p")
					results, _ := b.InviteMany(t.Context(), ps, nil)
					require.Len(t, results, 25)
					for range 5 {
						b.Clock.Advance(time.Hour)
						_, err := b.Deliver(t.Context(), nil)
						require.NoError(t, err)
					}
					b.RequireEachInvitedOnce(t, ps)
				})
			})
		}
	})
}

// Each behavior that Clerk does not document, without a fault and with each call failing before and after it took effect.
func TestPromise3_OrganizationWhateverClerkDoes(t *testing.T) {
	t.Parallel()
	type situation struct {
		behavior clerkinvitetest.NamedBehavior
		scene    organizationScene
		call     clerkinvitetest.Call // "" for no fault
		when     clerkinvitetest.When
	}
	testkit.OnBoth(t, func(t *testing.T, fresh func(*testing.T, testkit.Options) *testkit.Rig) {
		var all []situation
		for _, behavior := range testkit.Sample(t, clerkinvitetest.Behaviors()) {
			for _, s := range organizationScenes() {
				for _, call := range append([]clerkinvitetest.Call{""}, s.calls...) {
					all = append(all, situation{behavior, s, call, clerkinvitetest.Before}, situation{behavior, s, call, clerkinvitetest.After})
				}
			}
		}
		for _, c := range testkit.DrawInShort(t, all, 10) {
			t.Run(fmt.Sprintf("%s/%s/%s %v", c.behavior.Name, c.scene.name, c.call, c.when), func(t *testing.T) {
				t.Parallel()
				b := fresh(t, testkit.Options{Organization: org})
				b.Clerk.SetBehavior(c.behavior.Behavior)
				b.Clerk.CreateInDashboard(org, "not-ada@example.com", "org:member", nil) // matched by a query for parts
				c.scene.before(t, b)
				if c.call != "" {
					b.Clerk.Fail(clerkinvitetest.Fault{Call: c.call, When: c.when, Kind: clerkinvitetest.Reset, Times: 3})
				}
				c.scene.run(t, b, c.when == clerkinvitetest.After)
			})
		}
	})
}

// With WithdrawOnFailure, a user without an active row does not stay in the organization, whether or not a lost request added them.
func TestOrganization_WithdrawnAfterAdding(t *testing.T) {
	t.Parallel()
	for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
		t.Run(when.String(), func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.AddVerifiedUser("ada@example.com")
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: when, Kind: clerkinvitetest.Reset})
				_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
				require.Error(t, err)
				m := b.Member(t, "ada@example.com")
				require.Equal(t, clerkinvite.StatusFailed, m.Status)
				require.Equal(t, clerkinvite.ReasonWithdrawn, m.Reason)
				b.RequireMembersAtClerk(t)
			})
		})
	}
}

// The request that ends one member's membership hangs. The other members' results are saved nevertheless.
func TestOrganization_HangingRequestDoesNotKeepOthersFromSettling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := testkit.NewMemory(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) {
			c.WithdrawOnFailure, c.Lease = true, time.Second
		}})
		var refs []clerkinvite.Ref
		for _, email := range []string{"a@example.com", "b@example.com", "c@example.com"} {
			b.Clerk.AddVerifiedUser(email)
			m, err := b.Reserve(t.Context(), clerkinvite.InviteParams{
				TenantID: "acme", Email: email, Organization: &clerkinvite.Organization{ID: org, AddExisting: true},
			})
			require.NoError(t, err)
			refs = append(refs, m.Ref())
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		var active atomic.Int32
		b.Clerk.OnCall(func(ctx context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallRemoveMember && w == clerkinvitetest.Before {
				for _, ref := range refs {
					if b.Member(t, ref.Email).Status == clerkinvite.StatusActive {
						active.Add(1)
					}
				}
				<-ctx.Done()
			}
		})
		report, err := b.DeliverMembers(t.Context(), refs)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 3, Linked: 2, Postponed: 1}, report)
		require.Equal(t, int32(2), active.Load(), "saved before the request")
	})
}

// abandon claims a reserved member like a process that dies during the first attempt. The lease has ended.
func abandon(t *testing.T, b *testkit.Rig, email string) {
	t.Helper()
	row := b.Member(t, email)
	claimed, until := *row, b.Clock.Now().Add(time.Minute)
	claimed.Attempts, claimed.ClaimedUntil, claimed.NextAttemptAt = 1, &until, &until
	results, err := b.Store.Update(t.Context(), []clerkinvite.Change{{Old: row, New: &claimed}})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	b.Clock.Advance(time.Hour)
}

// A process dies after it has added a user. Clerk does not show who added the user, so the member becomes active.
func TestOrganization_AbandonedAfterAdding(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{
			TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org, AddExisting: true},
		})
		require.NoError(t, err)
		abandon(t, b, "ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// Clerk does not say whether the only attempt has added the user. The member keeps waiting, so no invitations are looked for.
func TestOrganization_AbandonedWithoutAResponse(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		reserveUsers(t, b, org, 1)
		abandon(t, b, "p0@example.com")
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallMemberships, Kind: clerkinvitetest.JSON500, Times: -1})
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.True(t, b.Member(t, "p0@example.com").Due())
		require.Zero(t, b.Clerk.Requests()[clerkinvitetest.CallOrganizationList])
	})
}

// The invitation is revoked while the user is being added, and the person is invited again, to be asked this time.
func TestOrganization_InvitedAgainWhileAdding(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallAddMember && when == clerkinvitetest.Before {
				_, err := b.Revoke(t.Context(), testkit.Ada)
				_, again := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
				assert.NoError(t, errors.Join(err, again))
			}
		})
		_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.Error(t, err)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "ada@example.com").Status)
		b.RequireMembersAtClerk(t)
	})
}

// inviteUserUnsaved invites a user, who may be a member of the organization already. The database is down from the end of the
// given call until the end of the attempt, so that the row does not show what the attempt has done.
func inviteUserUnsaved(t *testing.T, isMember bool, last clerkinvitetest.Call, o clerkinvite.Organization) (b *testkit.Rig, userID string) {
	t.Helper()
	clerk, store := clerkinvitetest.NewClerk(), &testkit.FaultyStore{Store: clerkinvitetest.NewMemoryStore()}
	b = testkit.New(t, testkit.Options{Organization: org}, clerk, clerk, store)
	u := clerk.AddVerifiedUser("ada@example.com")
	if isMember {
		clerk.JoinOrganization(org, u.ID, "org:member")
		b.Clock.Advance(time.Hour)
	}
	clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == last && when == clerkinvitetest.After {
			store.Fail(errors.New("the database is down"), false)
		}
	})
	_, err := b.InviteInto(t, "ada@example.com", o)
	require.Error(t, err)
	clerk.OnCall(nil)
	store.Fail(nil, false)
	return b, u.ID
}

// An attempt has added a user, but could not write it. Then the user is banned, so the next attempt refuses the member and ends
// the membership, unless it is the last admin's.
func TestOrganization_BarredAfterAdding(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"org:member", "org:admin"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			b, u := inviteUserUnsaved(t, false, clerkinvitetest.CallAddMember, clerkinvite.Organization{AddExisting: true, Role: role})
			b.RequireMembersAtClerk(t, u)
			b.Clerk.BanUser(u)
			b.Clock.Advance(time.Hour)

			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRemoveMember, Kind: clerkinvitetest.JSON500})
			_, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.True(t, b.Member(t, "ada@example.com").Due(), "the membership is not ended yet")
			b.Clock.Advance(time.Hour)
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusFailed, b.Member(t, "ada@example.com").Status)
			if role == "org:admin" {
				b.RequireMembersAtClerk(t, u)
			} else {
				b.RequireMembersAtClerk(t)
			}
		})
	}
}

// An attempt has added a user, but could not write it, and the user is banned. A second call cannot end the membership yet: its
// error is Clerk's, and says that the member waits.
func TestOrganization_BarredMembershipNotEnded(t *testing.T) {
	t.Parallel()
	b, u := inviteUserUnsaved(t, false, clerkinvitetest.CallAddMember, clerkinvite.Organization{AddExisting: true})
	b.Clerk.BanUser(u)
	b.Clock.Advance(time.Hour)
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRemoveMember, Kind: clerkinvitetest.JSON500})
	_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.True(t, clerkErr.Queued())
	require.Equal(t, "remove member", clerkErr.Op)
	var api *clerkinvite.APIError
	require.ErrorAs(t, clerkErr.Err, &api)
	require.NotErrorAs(t, clerkErr.Err, new(*clerkinvite.ClerkInvitationError), "wrapped once")
	require.Equal(t, http.StatusInternalServerError, api.StatusCode)
}

// A resend cannot revoke the older invitation.
func TestOrganization_ResendCannotRevoke(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationRevoke, Kind: clerkinvitetest.JSON500, Times: -1})
		_, err := b.Resend(t.Context(), m.Ref())
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.True(t, clerkErr.Queued())
		require.Equal(t, "revoke invitation", clerkErr.Op)
		require.NotErrorAs(t, clerkErr.Err, new(*clerkinvite.ClerkInvitationError), "wrapped once")
	})
}

// A banned user was a member of the organization before, and no attempt got as far as adding the user.
func TestOrganization_BarredMemberOfOthersStays(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		b.Clerk.BanUser(u.ID)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Kind: clerkinvitetest.JSON500})
		_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.Error(t, err)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.ReasonUserBanned, b.Member(t, "ada@example.com").Reason)
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// The same if each invitation is tried once, and the attempt has failed when it asked about the older invitation.
func TestOrganization_BarredMemberOfOthersStays_TriedOnce(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		m, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.NoError(t, err)
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		b.Clerk.BanUser(u.ID)
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{
			Call: clerkinvitetest.CallOrganizationList, Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: time.Minute,
		})
		_, err = b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		b.Clerk.ClearFaults()
		require.True(t, b.Member(t, "ada@example.com").Due())
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.False(t, b.Member(t, "ada@example.com").Due())
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// An attempt has added a user, and before it can write that, the member is revoked and invited again. Another attempt makes the
// member active while the first would end the membership.
func TestOrganization_AddedUserOfAWaitingMemberStays(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		add := clerkinvite.InviteParams{
			TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org, AddExisting: true},
		}
		u := b.Clerk.AddVerifiedUser(add.Email)
		var added, invited atomic.Bool
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			var err error
			switch {
			case call == clerkinvitetest.CallAddMember && when == clerkinvitetest.After && !added.Swap(true):
				_, revoke := b.Revoke(ctx, testkit.Ada)
				_, reserve := b.Reserve(ctx, add)
				invited.Store(true)
				err = errors.Join(revoke, reserve)
			case call == clerkinvitetest.CallRemoveMember && when == clerkinvitetest.Before && invited.Swap(false):
				_, err = b.Deliver(ctx, nil)
			}
			assert.NoError(t, err)
		})
		_, err := b.Invite(t.Context(), add)
		require.Error(t, err)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, add.Email).Status)
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// While an attempt adds a user, the user accepts another tenant's invitation, and Clerk's response to the attempt is lost. The withdrawn
// attempt does not end that membership.
func TestOrganization_WithdrawnAddKeepsAnAcceptedMembership(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, other.Status)
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallAddMember && when == clerkinvitetest.Before {
				assert.NoError(t, b.Clerk.AcceptOrganization(other.InvitationID, u.ID))
			}
		})
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err = b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.Error(t, err)
		require.Equal(t, clerkinvite.ReasonWithdrawn, b.Member(t, "ada@example.com").Reason)
		b.RequireMembersAtClerk(t, u.ID)
		now, err := b.Get(t.Context(), other.Ref())
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, now.Status)
	})
}

// The database fails before an attempt can write that the user is a member. Revoke ends the membership, because the attempt may have
// added the user, unless the membership is older than the member.
func TestOrganization_RevokeKeepsAnOlderMembership(t *testing.T) {
	t.Parallel()
	for _, older := range []bool{true, false} {
		t.Run(fmt.Sprintf("older %v", older), func(t *testing.T) {
			t.Parallel()
			b, u := inviteUserUnsaved(t, older, clerkinvitetest.CallMemberships, clerkinvite.Organization{AddExisting: true})
			_, err := b.Revoke(t.Context(), testkit.Ada)
			require.NoError(t, err)
			if older {
				b.RequireMembersAtClerk(t, u)
			} else {
				b.RequireMembersAtClerk(t)
			}
		})
	}
}

// Clerk responds so slowly that another process may have the member by now. The user is not added.
func TestOrganization_NotAddedAfterTheLease(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallMemberships && when == clerkinvitetest.After {
				b.Clock.Advance(time.Hour)
			}
		})
		_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.Error(t, err)
		b.RequireMembersAtClerk(t)
		b.Clerk.OnCall(nil)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// The invitation is revoked or purged while the user is being added, also if the user has another verified address. Without an
// active row, the user does not stay in the organization.
func TestOrganization_RevokedWhileAdding(t *testing.T) {
	t.Parallel()
	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	ends := map[string]func(t *testing.T, b *testkit.Rig){
		"revoked": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			_, err := b.Revoke(t.Context(), ada)
			require.NoError(t, err)
		},
		"purged": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clock.Advance(time.Hour) // the claim has ended
			require.NoError(t, b.Purge(t.Context(), ada))
		},
	}
	for name, end := range ends {
		for _, verified := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/another address %v", name, verified), func(t *testing.T) {
				t.Parallel()
				eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
					u := b.Clerk.AddVerifiedUser("ada@example.com")
					if verified {
						b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
					}
					b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
						if call == clerkinvitetest.CallAddMember && when == clerkinvitetest.Before {
							end(t, b)
						}
					})
					_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
					require.Error(t, err)
					rows, err := b.Store.Find(t.Context(), clerkinvite.Query{Emails: []string{"ada@example.com"}})
					require.NoError(t, err)
					for _, row := range rows {
						require.Equal(t, clerkinvite.StatusRevoked, row.Status)
					}
					b.RequireMembersAtClerk(t)
				})
			})
		}
	}
}

// During an attempt, the member is revoked and reserved again for another organization. The attempt's findings prove nothing there,
// and a membership that it has added is ended.
func TestPromise5_OrganizationChangedDuringTheAttempt(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]*clerkinvite.Organization{"organization": {ID: org, AddExisting: true}, "application": nil} {
		for _, verified := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/another address %v", name, verified), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }}, func(t *testing.T, b *testkit.Rig) {
					b.Clerk.AddOrganization("org_globex", clerkinvitetest.OrganizationSpec{})
					u := b.Clerk.AddVerifiedUser("ada@example.com")
					if verified {
						b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
					}
					during := clerkinvitetest.CallAddMember
					if from == nil {
						during = clerkinvitetest.CallFindUsers
					}
					var changed atomic.Bool
					b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
						if call != during || when != clerkinvitetest.Before || changed.Swap(true) {
							return
						}
						_, err := b.Revoke(t.Context(), testkit.Ada)
						_, again := b.Reserve(t.Context(), clerkinvite.InviteParams{
							TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: "org_globex", AddExisting: true},
						})
						assert.NoError(t, errors.Join(err, again))
					})
					_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", Organization: from})
					var dup *clerkinvite.DuplicateEmailError
					require.ErrorAs(t, err, &dup)
					require.Equal(t, clerkinvite.StatusReserved, dup.Member.Status)
					b.RequireMembersAtClerk(t)
					_, err = b.Deliver(t.Context(), nil)
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
					b.RequireMembersAtClerk(t)
				})
			})
		}
	}
}

// The tenant already has the user under another address, which the user may have given up. The membership that was added for
// the new address stays only if that member is in the organization.
func TestOrganization_AddedForASecondAddress(t *testing.T) {
	t.Parallel()
	for _, inOrganization := range []bool{false, true} {
		for i := range 4 {
			gaveUp, lost := i%2 > 0, i >= 2
			t.Run(fmt.Sprintf("in the organization %v/gave up %v/lost response %v", inOrganization, gaveUp, lost), func(t *testing.T) {
				t.Parallel()
				eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
					u := b.Clerk.AddVerifiedUser("work@example.com")
					first := clerkinvite.InviteParams{TenantID: "acme", Email: "work@example.com", Organization: &clerkinvite.Organization{ID: org, AddExisting: true}}
					var remains []string
					if inOrganization {
						remains = []string{u.ID}
					} else {
						first.Organization = &clerkinvite.Organization{ID: "org_globex", AddExisting: true}
						b.Clerk.AddOrganization("org_globex", clerkinvitetest.OrganizationSpec{})
					}
					m, err := b.Invite(t.Context(), first)
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusActive, m.Status)
					b.Clerk.LeaveOrganization(first.Organization.ID, u.ID) // the webhook is late
					b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "ada@example.com", Verified: true})
					if gaveUp {
						b.Clerk.SetPrimaryEmail(u.ID, "ada@example.com")
						b.Clerk.RemoveEmail(u.ID, "work@example.com")
					}
					if lost {
						b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
						_, err = b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
						var uncertain *clerkinvite.ClerkInvitationError
						require.ErrorAs(t, err, &uncertain)
						b.Clock.Advance(time.Hour)
					}
					_, err = b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
					var dup *clerkinvite.DuplicateEmailError
					require.ErrorAs(t, err, &dup)
					require.Equal(t, m.ID, dup.Member.ID)
					b.RequireMembersAtClerk(t, remains...)
				})
			})
		}
	}
}

// A user is deleted just before the request that adds them. Clerk's 404 concerns only this user.
func TestOrganization_UserDeletedWhileAdding(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }})
	var people []clerkinvite.InviteParams
	for i := range 6 {
		p := clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i), Organization: &clerkinvite.Organization{ID: org, Role: "org:member", AddExisting: true}}
		if i < 3 {
			b.Clerk.AddVerifiedUser(p.Email)
		}
		people = append(people, p)
	}
	var deleted atomic.Bool
	b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallAddMember && when == clerkinvitetest.Before && !deleted.Swap(true) {
			users, err := b.Clerk.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{"p0@example.com"}})
			if assert.NoError(t, err) {
				b.Clerk.DeleteUser(users[0].ID)
			}
		}
	})
	results, err := b.InviteMany(t.Context(), people, nil)
	require.NoError(t, err)
	for i, r := range results {
		if i > 0 {
			require.NoError(t, r.Err, r.Member.Email)
		}
	}
}

// Clerk does not answer when the membership must be ended, either. The member keeps waiting, and the next attempt finds the membership.
func TestOrganization_MembershipNotEnded(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallRemoveMember, Kind: clerkinvitetest.Reset})
		_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.True(t, clerkErr.Queued())
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallMemberships, Kind: clerkinvitetest.Reset, Times: 3})
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusReserved, b.Member(t, "ada@example.com").Status)
		b.Clerk.ClearFaults() // in memory each call asks once
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		b.RequireMembersAtClerk(t, u.ID)
	})
}

// Many callers invite one address into an organization: one email.
func TestPromise1_OrganizationConcurrentInvites(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		var wg sync.WaitGroup
		invited, duplicates := atomic.Int64{}, atomic.Int64{}
		for range 16 {
			wg.Go(func() {
				_, err := b.TryInvite(t, "ada@example.com")
				var dup *clerkinvite.DuplicateEmailError
				switch {
				case err == nil:
					invited.Add(1)
				case errors.As(err, &dup):
					duplicates.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, invited.Load())
		require.EqualValues(t, 15, duplicates.Load())
		b.RequireInvited(t, "ada@example.com", 1)
	})
}

// A thousand people are invited into three organizations with Clerk's limits, in simulated time. One organization is full: its
// people are refused with the reason, and the others' people are invited as fast as the limits allow.
func TestPromise8_OrganizationsAtTheCeiling(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{Organization: "org_0"})
	b.Clerk.AddOrganization("org_1", clerkinvitetest.OrganizationSpec{})
	b.Clerk.AddOrganization("org_2", clerkinvitetest.OrganizationSpec{MaxMembers: 5})
	b.Clerk.SetLimits(clerkinvitetest.DocumentedLimits())
	var people []clerkinvite.InviteParams
	for i := range 1000 {
		organization := fmt.Sprintf("org_%d", i%3)
		people = append(people, clerkinvite.InviteParams{
			TenantID: organization, Email: fmt.Sprintf("p%d@example.com", i), Organization: &clerkinvite.Organization{ID: organization},
		})
	}
	_, err := b.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	start := b.Clock.Now()
	for pass := 0; ; pass++ {
		require.Less(t, pass, 100, "delivery ends")
		_, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		due, err := b.Store.Due(t.Context(), clerkinvite.DueQuery{At: b.Clock.Now().AddDate(1, 0, 0), Limit: 1})
		require.NoError(t, err)
		if len(due) == 0 {
			break
		}
		b.Clock.Advance(max(due[0].NextAttemptAt.Sub(b.Clock.Now()), time.Minute))
	}
	// 667 people need 67 requests for ten, of which an hour has 50; the others share its single requests.
	require.LessOrEqual(t, b.Clock.Now().Sub(start), time.Hour+5*time.Minute)
	states := make(map[string]int)
	for _, p := range people {
		m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: p.TenantID, Email: p.Email})
		require.NoError(t, err)
		states[fmt.Sprintf("%s %s %s", m.TenantID, m.Status, m.Reason)]++
		emails := 0
		if m.Status == clerkinvite.StatusPending {
			emails = 1
		}
		require.Equal(t, emails, b.Clerk.EmailsTo(p.Email), p.Email)
	}
	require.Equal(t, map[string]int{
		"org_0 pending ": 334, "org_1 pending ": 333, "org_2 pending ": 5, "org_2 failed " + clerkinvite.ReasonOrganizationFull: 328,
	}, states)
}

// A failure before anything was sent cannot have added the user, so Revoke keeps a membership that the user already had. Revoke and
// Remove keep it if another tenant's member is active by it.
func TestOrganization_WithdrawKeepsAMembershipOfOthers(t *testing.T) {
	t.Parallel()
	ada := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
	for _, name := range []string{"Revoke", "Remove"} {
		withdraw := refVerbs[name]
		t.Run(name+"/nothing was sent", func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				u := b.Clerk.AddVerifiedUser(ada.Email)
				b.Clerk.JoinOrganization(org, u.ID, "org:member")
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallFindUsers, Status: 503, Times: 9})
				_, err := b.InviteInto(t, ada.Email, clerkinvite.Organization{AddExisting: true})
				require.Error(t, err)
				b.Clerk.ClearFaults()
				require.Equal(t, 1, b.Member(t, ada.Email).Attempts, "the situation of this test")
				_, err = withdraw(t.Context(), b, ada)
				require.NoError(t, err)
				if name == "Revoke" {
					b.RequireMembersAtClerk(t, u.ID)
				} else {
					b.RequireMembersAtClerk(t)
				}
			})
		})
		t.Run(name+"/another tenant needs it", func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				u := b.Clerk.AddVerifiedUser(ada.Email)
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
				_, err := b.InviteInto(t, ada.Email, clerkinvite.Organization{AddExisting: true})
				require.Error(t, err)
				theirs, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: ada.Email, Organization: &clerkinvite.Organization{ID: org}})
				require.NoError(t, err)
				if b.Member(t, ada.Email).Due() { // otherwise the other tenant's Invite has resolved both
					require.Equal(t, clerkinvite.StatusActive, theirs.Status)
					_, err = withdraw(t.Context(), b, ada)
					require.NoError(t, err)
					b.RequireMembersAtClerk(t, u.ID)
				}
			})
		})
	}
}

// Lost responses in a row end the pass, also of requests that add users.
func TestOrganization_LostAddsStopThePass(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		reserveUsers(t, b, org, 6)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, Status: http.StatusBadGateway, Times: -1})
		report, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.OutcomeUncertain, clerkErr.Outcome)
		require.Equal(t, 3, b.Clerk.Requests()[clerkinvitetest.CallAddMember])
		require.Equal(t, 3, report.Claimed)
	})
}

// Lost responses that are not in a row do not end the pass.
func TestOrganization_LostAddsBetweenOthers(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		reserveUsers(t, b, org, 8)
		var requests atomic.Int32
		b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
			if call == clerkinvitetest.CallAddMember && when == clerkinvitetest.Before && requests.Add(1)%3 != 0 {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Status: http.StatusBadGateway})
			}
		})
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 8, Linked: 2, Postponed: 6}, report)
	})
}

// A full organization refuses the users that must be added with one request.
func TestOrganization_FullRefusesAddsWithOneRequest(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.AddOrganization("org_full", clerkinvitetest.OrganizationSpec{MaxMembers: 2})
		reserveUsers(t, b, "org_full", 6)
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, &clerkinvite.DeliverReport{Claimed: 6, Linked: 2, Refused: 4}, report)
		require.Equal(t, 3, b.Clerk.Requests()[clerkinvitetest.CallAddMember])
	})
}

// reserveUsers reserves n users whom a delivery adds to the organization.
func reserveUsers(t *testing.T, b *testkit.Rig, organization string, n int) {
	t.Helper()
	for i := range n {
		email := fmt.Sprintf("p%d@example.com", i)
		b.Clerk.AddVerifiedUser(email)
		_, err := b.Reserve(t.Context(), clerkinvite.InviteParams{
			TenantID: "acme", Email: email, Organization: &clerkinvite.Organization{ID: organization, AddExisting: true},
		})
		require.NoError(t, err)
	}
}

// Lost responses in a row end the pass, also if each is about another organization.
func TestOrganization_LostResponsesStopThePass(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		for i := range 6 {
			id := fmt.Sprintf("org_%d", i)
			b.Clerk.AddOrganization(id, clerkinvitetest.OrganizationSpec{})
			p := testkit.Params(id, "ada@example.com")
			p.Organization = &clerkinvite.Organization{ID: id}
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
		}
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, Status: 502, Times: -1})
		report, err := b.Deliver(t.Context(), nil)
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
		require.Equal(t, clerkinvite.OutcomeUncertain, clerkErr.Outcome)
		require.Equal(t, 3, b.Clerk.Requests()[clerkinvitetest.CallOrganizationCreate])
		require.Equal(t, 3, report.Claimed)
	})
}

// Remove of an active member needs only the request that ends the membership.
func TestOrganization_RemoveActiveWhileTheUserCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 429} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				joinedAs(t, b, "acme", "ada@example.com")
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallGetUser, Status: status, Times: -1, RetryAfter: time.Minute})
				_, err := b.Remove(t.Context(), testkit.Ada)
				require.NoError(t, err)
				b.RequireMembersAtClerk(t)
			})
		})
	}
}

// The person was added for one tenant, while the other tenant's invitation is open. After Remove, the person can still accept it.
func TestOrganization_RemoveActiveKeepsAnotherTenantsInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("grace@example.com").ID, "org:admin")
		b.MustInvite(t, "grace@example.com")
		other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		m, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Equal(t, clerkinvite.StatusPending, memberAt(t, b, other.Ref()).Status)
		_, err = b.Remove(t.Context(), testkit.Ada)
		require.NoError(t, err)
		b.Clock.Advance(time.Hour)
		b.MustReconcile(t)
		now := memberAt(t, b, other.Ref())
		require.Equal(t, clerkinvite.StatusPending, now.Status)
		require.NoError(t, b.Clerk.AcceptOrganization(other.InvitationID, u.ID))
		_, err = b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, memberAt(t, b, other.Ref()).Status)
	})
}

// Clerk's list shows the membership once, and then no longer. Another tenant's member has accepted, so the membership stays.
func TestOrganization_RemoveWithAListThatLags(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	api := &strangeAPI{Clerk: clerk}
	b := testkit.New(t, testkit.Options{Organization: org}, clerk, api, clerkinvitetest.NewMemoryStore())
	other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
	require.NoError(t, err)
	_, err = b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	u := clerk.AddVerifiedUser("ada@example.com")
	require.NoError(t, clerk.AcceptOrganization(other.InvitationID, u.ID))
	calls := 0
	api.members = func(list []clerkinvite.Membership) []clerkinvite.Membership {
		if calls++; calls > 1 {
			return nil
		}
		return list
	}
	_, err = b.Remove(t.Context(), testkit.Ada)
	require.NoError(t, err)
	b.RequireMembersAtClerk(t, u.ID)
}

// A withdrawn attempt has added the user. The other tenant's invitation was not accepted, so its member keeps waiting, and the membership ends.
func TestOrganization_WithdrawnAddProvesNothing(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
		other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err = b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
		require.Error(t, err)
		require.Equal(t, clerkinvite.ReasonWithdrawn, b.Member(t, "ada@example.com").Reason)
		b.RequireMembersAtClerk(t)
		require.Equal(t, clerkinvite.StatusPending, memberAt(t, b, other.Ref()).Status)
	})
}

// One tenant's response to a create was lost, and another tenant's member adopted the invitation. Remove or Purge of that
// member leaves the invitation open, because the first member is due and will find it.
func TestOrganization_AdoptedInvitationOfALostCreate(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"Remove", "Purge"} {
		t.Run(verb, func(t *testing.T) {
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
				_, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
				require.Error(t, err)
				b.Clerk.ClearFaults()
				open := b.Clerk.OpenInvitations("ada@example.com")
				require.Len(t, open, 1)
				m := b.MustInvite(t, "ada@example.com")
				require.Equal(t, open[0].ID, m.InvitationID)
				removeAsSecondAddress(t, b, m.Ref())
				ref := clerkinvite.Ref{TenantID: "globex", Email: "ada@example.com"}
				require.True(t, memberAt(t, b, ref).Due())
				require.Empty(t, memberAt(t, b, ref).InvitationID)
				_, err = refVerbs[verb](t.Context(), b, testkit.Ada)
				require.NoError(t, err)
				b.Clock.Advance(2 * time.Hour)
				_, err = b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				now := memberAt(t, b, ref)
				require.Equal(t, clerkinvite.StatusPending, now.Status)
				require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
			})
		})
	}
}

// Another tenant's member stops waiting during a Remove, and the hook of a tenant without an organization fails. No member
// needs the membership, so it ends.
func TestOrganization_RemoveBesideAnUnrelatedHook(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	var hook error
	store := refusingStore{clerkinvitetest.NewMemoryStore(), func(next *clerkinvite.Member) error {
		if next.TenantID == "initech" {
			return hook
		}
		return nil
	}}
	b := testkit.New(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) {
		c.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			if p.TenantID != "initech" {
				p.Organization = &clerkinvite.Organization{ID: org}
			}
			return nil
		}
	}}, clerk, clerk, store)
	_, err := b.Reserve(t.Context(), testkit.Params("globex", "ada@example.com"))
	require.NoError(t, err)
	_, err = b.Reserve(t.Context(), testkit.Params("initech", "ada@example.com")) // into the application
	require.NoError(t, err)
	_, err = b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	u := clerk.AddVerifiedUser("ada@example.com")
	clerk.JoinOrganization(org, u.ID, "org:member")
	hook = errors.New("hook of initech")
	ref := clerkinvite.Ref{TenantID: "globex", Email: "ada@example.com"}
	// The change must happen between the reading of the rows and their write: remove globex in the store's Update.
	var raced atomic.Bool
	racing := racingStore{b.Store, func() {
		if raced.Swap(true) {
			return
		}
		row, err := store.Find(t.Context(), clerkinvite.Query{Emails: []string{"ada@example.com"}})
		require.NoError(t, err)
		for _, r := range row {
			if r.TenantID != ref.TenantID {
				continue
			}
			next := *r
			next.Status, next.NextAttemptAt = clerkinvite.StatusRevoked, nil
			res, err := store.Store.Update(t.Context(), []clerkinvite.Change{{Old: r, New: &next}})
			require.NoError(t, err)
			require.NoError(t, res[0].Err)
		}
	}}
	b2 := testkit.New(t, testkit.Options{Clock: b.Clock, Configure: func(c *clerkinvite.Config) { c.Organizations = clerk }}, clerk, clerk, racing)
	_, err = b2.Remove(t.Context(), testkit.Ada)
	require.NoError(t, err)
	b.RequireMembersAtClerk(t)
}

// racingStore calls before directly before a write of globex's rows.
type racingStore struct {
	clerkinvite.Store
	before func()
}

func (s racingStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	for _, c := range changes {
		if c.New != nil && c.New.TenantID == "globex" {
			s.before()
		}
	}
	return s.Store.Update(ctx, changes)
}

func memberAt(t *testing.T, b *testkit.Rig, ref clerkinvite.Ref) *clerkinvite.Member {
	t.Helper()
	m, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	return m
}

// An organization was deleted, and nothing else shows that the key is right. A resend waits for an hour, and then ends.
func TestOrganization_ResendIntoADeletedOrganization(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.Clerk.DeleteOrganization(org)
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		began := b.Clock.Now()
		for b.Member(t, "ada@example.com").Due() {
			b.Clock.Advance(time.Minute)
			_, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Less(t, b.Clock.Now().Sub(began), 3*time.Hour)
		}
		require.Greater(t, b.Clock.Now().Sub(began), 50*time.Minute)
		ended := b.Member(t, "ada@example.com")
		require.Equal(t, clerkinvite.StatusRevoked, ended.Status)
		require.Equal(t, "resource_not_found", ended.Reason)
	})
}

// A user with several addresses is added. The membership stays, also if a Revoke that began before the delivery looks for it.
func TestOrganization_AddedMembershipStays(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string][]string{"one address": nil, "two addresses": {"work@example.com"}} {
		for _, revoked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/revoke %v", name, revoked), func(t *testing.T) {
				t.Parallel()
				eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
					u := b.Clerk.AddVerifiedUser("ada@example.com")
					for _, address := range addresses {
						b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: address, Verified: true})
					}
					invite := func() error {
						_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
						return err
					}
					if revoked {
						b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, Kind: clerkinvitetest.Reset})
						require.Error(t, invite())
						b.Clock.Advance(time.Hour)
						var delivered atomic.Bool
						b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
							if call == clerkinvitetest.CallMemberships && when == clerkinvitetest.Before && !delivered.Swap(true) {
								if counts, err := b.Deliver(ctx, nil); assert.NoError(t, err) {
									assert.Equal(t, 1, counts.Linked)
								}
							}
						})
						_, err := b.Revoke(t.Context(), testkit.Ada)
						var transition *clerkinvite.TransitionError
						require.ErrorAs(t, err, &transition)
						require.True(t, delivered.Load())
					} else {
						require.NoError(t, invite())
					}
					m := b.Member(t, "ada@example.com")
					require.Equal(t, clerkinvite.StatusActive, m.Status)
					require.Equal(t, u.ID, m.ClerkUserID)
					b.RequireMembersAtClerk(t, u.ID)
				})
			})
		}
	}
}
