package clerkinvite_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/organizationtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const org = testkit.Organization

func TestOrganization(t *testing.T) {
	t.Parallel()
	organizationtest.Run(t, testkit.Each)
}

// eachOrganization runs the test with a tenant that is an organization, in memory and with PostgreSQL and HTTP.
func eachOrganization(t *testing.T, test func(t *testing.T, b *testkit.Rig)) {
	t.Helper()
	testkit.Each(t, testkit.Options{Organization: org}, test)
}

// Banned users are neither invited nor added.
func TestOrganization_BarredUser(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.BanUser(b.Clerk.AddVerifiedUser("ada@example.com").ID)
		for _, add := range []bool{false, true} {
			_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: add})
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &clerkErr)
			require.Equal(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
		}
		b.RequireMembersAtClerk(t)
		require.Zero(t, b.Clerk.EmailsTo("ada@example.com"))
	})
}

// The dashboard's invitation does not expire after the days that the caller asked for. Clerk does not say when it does.
func TestOrganization_ForeignInvitationExpiresLater(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.SetBehavior(clerkinvitetest.Behavior{NoExpiresAt: true})
		foreign := b.Clerk.CreateInDashboard(org, "ada@example.com", "org:member", nil)
		m, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: 1})
		require.NoError(t, err)
		require.Equal(t, foreign.ID, m.InvitationID)
		b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("joan@example.com").ID, "org:member")
		b.MustInvite(t, "joan@example.com") // her user shows that the key is right
		b.Clock.Advance(48 * time.Hour)
		b.MustReconcile(t)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)

		b.Clock.Advance(30 * 24 * time.Hour) // then Clerk lists it as expired
		b.MustReconcile(t)
		require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "ada@example.com").Status)
	})
}

// Another process completes a resend whose requests take longer than the lease. The first process leaves its invitation alone.
func TestOrganization_ResendOvertaken(t *testing.T) {
	t.Parallel()
	for _, slow := range []clerkinvitetest.Call{clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationRevoke} {
		for _, when := range []clerkinvitetest.When{clerkinvitetest.Before, clerkinvitetest.After} {
			t.Run(fmt.Sprint(slow, " ", when), func(t *testing.T) {
				t.Parallel()
				eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
					m := b.MustInvite(t, "ada@example.com")
					b.Clock.Advance(time.Hour)
					var overtaken atomic.Bool
					b.Clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, at clerkinvitetest.When) {
						if call == slow && at == when && !overtaken.Swap(true) {
							b.Clock.Advance(time.Hour)
							_, err := b.Deliver(t.Context(), nil)
							assert.NoError(t, err)
						}
					})
					_, _ = b.Resend(t.Context(), m.Ref()) // its error does not matter
					b.Clerk.OnCall(nil)
					b.MustReconcile(t)
					got := b.Member(t, "ada@example.com")
					require.Equal(t, clerkinvite.StatusPending, got.Status)
					open := b.Clerk.OpenInvitations("ada@example.com")
					require.Len(t, open, 1)
					require.Equal(t, got.InvitationID, open[0].ID)
					require.Equal(t, 2, b.Clerk.EmailsTo("ada@example.com"))
				})
			})
		}
	}
}

// Two tenants wait for one invitation. It stays open as long as one of them does.
func TestOrganization_SharedInvitationStays(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		first := b.MustInvite(t, "ada@example.com")
		second, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org}})
		require.NoError(t, err)
		require.Equal(t, first.InvitationID, second.InvitationID)

		removeAsSecondAddress(t, b, first.Ref())
		b.MustReconcile(t)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
		again := b.MustInvite(t, "ada@example.com")
		require.Equal(t, first.InvitationID, again.InvitationID, "the other tenant's member still waits for it")
		require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
		removeAsSecondAddress(t, b, first.Ref())

		id := b.Clerk.AddVerifiedUser("ada@example.com").ID
		require.NoError(t, b.Clerk.AcceptOrganization(second.InvitationID, id))
		members, err := b.ResolveUser(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, members, 1)
		require.Equal(t, "globex", members[0].TenantID)
	})
}

// An admin revokes the invitation of two tenants in the dashboard. The event revokes both members. If the store fails for
// one, the event still revokes the other, and its next delivery revokes the rest.
func TestOrganization_SharedInvitationRevoked(t *testing.T) {
	t.Parallel()
	for _, failing := range []string{"no tenant", "acme", "globex"} {
		t.Run(failing+" fails", func(t *testing.T) {
			t.Parallel()
			clerk, store := clerkinvitetest.NewClerk(), &refusingStore{clerkinvitetest.NewMemoryStore(), refuseTenant("")}
			b := testkit.New(t, testkit.Options{Organization: org}, clerk, clerk, store)
			first := b.MustInvite(t, "ada@example.com")
			second, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
			require.NoError(t, err)
			require.Equal(t, first.InvitationID, second.InvitationID)
			b.Clerk.OrganizationEvents()
			b.Clerk.RevokeInDashboard(first.InvitationID)
			events := b.Clerk.OrganizationEvents()
			require.Len(t, events, 1)
			e, err := b.Verifier.Verify(events[0].Payload, events[0].Sign(clerkinvitetest.WebhookSecret))
			require.NoError(t, err)

			store.refuse = refuseTenant(failing)
			changed, err := b.HandleEvent(t.Context(), e)
			if failing != "no tenant" {
				require.ErrorIs(t, err, errRefusedRow)
				require.Len(t, changed, 1)
				store.refuse = refuseTenant("")
				again, err := b.HandleEvent(t.Context(), e)
				require.NoError(t, err)
				changed = append(changed, again...)
			} else {
				require.NoError(t, err)
			}
			require.Len(t, changed, 2)
			for _, m := range []*clerkinvite.Member{first, second} {
				now, err := b.Get(t.Context(), m.Ref())
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRevoked, now.Status)
			}
		})
	}
}

// The other tenant's member no longer waits for the invitation, which is still open. A new Invite sends another email.
func TestOrganization_InvitedAgainAfterASharedInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		first := b.MustInvite(t, "ada@example.com")
		second, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		removeAsSecondAddress(t, b, first.Ref())
		removeAsSecondAddress(t, b, second.Ref())
		again := b.MustInvite(t, "ada@example.com")
		require.NotEqual(t, first.InvitationID, again.InvitationID)
		require.Equal(t, 2, b.Clerk.EmailsTo("ada@example.com"))
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
	})
}

// removeAsSecondAddress removes a member by another way than Remove, which would revoke its invitation.
func removeAsSecondAddress(t *testing.T, b *testkit.Rig, ref clerkinvite.Ref) {
	t.Helper()
	row, err := b.Get(t.Context(), ref)
	require.NoError(t, err)
	removed := *row
	removed.Status, removed.ClerkUserID, removed.Reason = clerkinvite.StatusRemoved, "", clerkinvite.ReasonSecondAddress
	results, err := b.Store.Update(t.Context(), []clerkinvite.Change{{Old: row, New: &removed}})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
}

// The reconciliation activates the other tenant's member, whose user was added, so that nobody waits for the invitation.
func TestPromise4_SharedInvitationLeftOver(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		creator := b.MustInvite(t, "ada@example.com")
		_, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		removeAsSecondAddress(t, b, creator.Ref())
		b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("ada@example.com").ID, "org:member")
		b.Clock.Advance(time.Hour)
		report := b.MustReconcile(t)
		require.Equal(t, 1, report.Activated)
		require.Equal(t, 1, report.LeftOver)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
	})
}

// Remove ends the membership of the user who has verified the address, even if the member is not active: the webhook was
// lost, an admin has added the user in the dashboard, or the user is in the tenant under another address.
func TestOrganization_RemoveEndsTheMembership(t *testing.T) {
	t.Parallel()
	join := func(t *testing.T, b *testkit.Rig) string {
		t.Helper()
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		return u.ID
	}
	situations := map[string]func(t *testing.T, b *testkit.Rig){
		"reserved": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			_, err := b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
			require.NoError(t, err)
			join(t, b)
		},
		"pending": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.MustInvite(t, "ada@example.com")
			join(t, b)
		},
		"accepted": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			m := b.MustInvite(t, "ada@example.com")
			require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, b.Clerk.AddVerifiedUser("ada@example.com").ID))
		},
		"expired": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.MustInvite(t, "ada@example.com")
			b.Clock.Advance(31 * 24 * time.Hour)
			b.MustReconcile(t)
			require.Equal(t, clerkinvite.StatusExpired, b.Member(t, "ada@example.com").Status)
			join(t, b)
		},
		"removed as a second address": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.MustInvite(t, "ada@example.com")
			removeAsSecondAddress(t, b, testkit.Ada)
			join(t, b)
		},
		"banned": func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			m := b.MustInvite(t, "ada@example.com")
			u := b.Clerk.AddVerifiedUser("ada@example.com")
			require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
			b.Clerk.BanUser(u.ID)
		},
	}
	for name, prepare := range situations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				prepare(t, b)
				require.Len(t, b.Clerk.Members(org), 1)
				m, err := b.Remove(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRemoved, m.Status)
				b.RequireMembersAtClerk(t)
				require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
			})
		})
	}
}

// Another member has accepted, but the webhook is late. Remove and Revoke keep the membership, and that member becomes active.
func TestOrganization_WithdrawKeepsAnUnreportedMembership(t *testing.T) {
	t.Parallel()
	globex := clerkinvite.InviteParams{TenantID: "globex", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org}}
	accept := func(t *testing.T, b *testkit.Rig, m *clerkinvite.Member, u clerkinvite.User) {
		t.Helper()
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
	}
	remove := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		_, err := b.Remove(t.Context(), testkit.Ada)
		require.NoError(t, err)
	}
	situations := map[string]func(t *testing.T, b *testkit.Rig) clerkinvite.Ref{ // returns the member who has accepted
		"under another address": func(t *testing.T, b *testkit.Rig) clerkinvite.Ref {
			t.Helper()
			b.MustInvite(t, "ada@example.com")
			m := b.MustInvite(t, "work@example.com")
			u := b.Clerk.AddVerifiedUser("ada@example.com")
			b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
			accept(t, b, m, u)
			remove(t, b)
			return m.Ref()
		},
		"in another tenant": func(t *testing.T, b *testkit.Rig) clerkinvite.Ref {
			t.Helper()
			m, err := b.Invite(t.Context(), globex)
			require.NoError(t, err)
			_, err = b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
			require.NoError(t, err)
			accept(t, b, m, b.Clerk.AddVerifiedUser("ada@example.com"))
			remove(t, b)
			return m.Ref()
		},
		"after the first Remove": func(t *testing.T, b *testkit.Rig) clerkinvite.Ref {
			t.Helper()
			b.MustInvite(t, "ada@example.com")
			remove(t, b)
			m, err := b.Invite(t.Context(), globex)
			require.NoError(t, err)
			accept(t, b, m, b.Clerk.AddVerifiedUser("ada@example.com"))
			remove(t, b)
			return m.Ref()
		},
		"after a failed request to add": func(t *testing.T, b *testkit.Rig) clerkinvite.Ref {
			t.Helper()
			m, err := b.Invite(t.Context(), globex)
			require.NoError(t, err)
			u := b.Clerk.AddVerifiedUser("ada@example.com")
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
			_, err = b.InviteInto(t, "ada@example.com", clerkinvite.Organization{ID: org, AddExisting: true})
			require.Error(t, err)
			accept(t, b, m, u)
			_, err = b.Revoke(t.Context(), testkit.Ada)
			require.NoError(t, err)
			return m.Ref()
		},
	}
	for name, situation := range situations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				m, err := b.Get(t.Context(), situation(t, b))
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusActive, m.Status)
				b.RequireMembersAtClerk(t, m.ClerkUserID)
				require.False(t, b.Member(t, "ada@example.com").Status.Waits())
			})
		})
	}
}

// A tenant has the same user in the application and, under another address, in an organization. Removing both members ends the
// membership.
func TestOrganization_RemoveOfASecondAddress(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }}, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.MustInvite(t, "ada@example.com")
		b.Clerk.AddEmail(u.ID, clerkinvitetest.EmailSpec{Address: "work@example.com", Verified: true})
		m, err := b.InviteInto(t, "work@example.com", clerkinvite.Organization{})
		require.NoError(t, err)
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
		_, err = b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.ReasonSecondAddress, b.Member(t, "work@example.com").Reason)
		for _, email := range []string{"ada@example.com", "work@example.com"} {
			removed, err := b.Remove(t.Context(), testkit.Acme(email))
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusRemoved, removed.Status)
		}
		b.RequireMembersAtClerk(t)
	})
}

// An active member has joined without accepting the invitation, whose link still works. Remove revokes it.
func TestOrganization_RemoveRevokesAnUnusedInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		_, err := b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		_, err = b.Remove(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Error(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
		b.RequireMembersAtClerk(t)
	})
}

// An active member adopted the invitation of another tenant's member, and joined without accepting it. Once that member no longer waits,
// Remove revokes it, because its link would still work.
func TestOrganization_RemoveRevokesAnAdoptedInvitation(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprintf("the other member waits %v", waits), func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
				require.NoError(t, err)
				require.Equal(t, other.InvitationID, b.MustInvite(t, "ada@example.com").InvitationID)
				if waits {
					removeAsSecondAddress(t, b, testkit.Ada)
				} else {
					removeAsSecondAddress(t, b, other.Ref())
					b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("ada@example.com").ID, "org:member")
					_, err = b.ResolveUser(t.Context(), b.Clerk.Members(org)[0].UserID)
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
				}
				_, err = b.Remove(t.Context(), testkit.Ada)
				require.NoError(t, err)
				b.RequireMembersAtClerk(t)
				require.Equal(t, waits, len(b.Clerk.OpenInvitations("ada@example.com")) == 1)
			})
		})
	}
}

// Clerk's list of memberships does not show yet that the person has accepted, or that a failed attempt has added the user. Remove and
// Revoke end the membership.
func TestOrganization_WithdrawWhileMembershipsLag(t *testing.T) {
	t.Parallel()
	accept := func(t *testing.T, b *testkit.Rig) {
		t.Helper()
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, b.Clerk.AddVerifiedUser(m.Email).ID))
	}
	for name, test := range map[string]struct {
		before func(t *testing.T, b *testkit.Rig)
		revoke bool
	}{
		"accepted": {before: accept},
		"accepted and left": {before: func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			accept(t, b)
			b.Clerk.LeaveOrganization(org, b.Clerk.Members(org)[0].UserID)
		}},
		"added, removed": {before: addWithoutResponse},
		"added, revoked": {before: addWithoutResponse, revoke: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			api := &strangeAPI{Clerk: clerk}
			b := testkit.New(t, testkit.Options{Organization: org}, clerk, api, clerkinvitetest.NewMemoryStore())
			test.before(t, b)
			api.members = func([]clerkinvite.Membership) []clerkinvite.Membership { return nil }
			verb, want := b.Remove, clerkinvite.StatusRemoved
			if test.revoke {
				verb, want = b.Revoke, clerkinvite.StatusRevoked
			}
			m, err := verb(t.Context(), testkit.Ada)
			require.NoError(t, err)
			require.Equal(t, want, m.Status)
			b.RequireMembersAtClerk(t)
		})
	}
}

// addWithoutResponse invites a user, whom Clerk adds to the organization. The response is lost.
func addWithoutResponse(t *testing.T, b *testkit.Rig) {
	t.Helper()
	b.Clerk.AddVerifiedUser("ada@example.com")
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
	_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true})
	require.Error(t, err)
	require.Len(t, b.Clerk.Members(org), 1)
}

// The response to the create is lost, and the user joins the organization in another way. The row refers to no invitation, but Remove
// finds the invitation at Clerk and revokes it.
func TestOrganization_RemoveRevokesALostInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAnyCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
		_, err := b.TryInvite(t, "ada@example.com")
		require.Error(t, err)
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		_, err = b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
		_, err = b.Remove(t.Context(), testkit.Ada)
		require.NoError(t, err)
		require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
		b.RequireMembersAtClerk(t)
	})
}

// A member was invited into the application and into several organizations, and Clerk still has an open invitation of each. Revoke,
// Remove and Purge revoke them all. An organization that was deleted does not keep them from that.
func TestOrganization_MovedMember(t *testing.T) {
	t.Parallel()
	routes := map[string][]string{
		"from the application": {"", "org_1"}, "between organizations": {"org_1", "org_2"}, "into the application": {"org_1", ""},
		"twice": {"", "org_1", "org_2"}, "back": {"org_1", "", "org_1"}, "from a deleted one": {"org_1", "org_deleted", "org_2"},
	}
	for _, verb := range []string{"Revoke", "Remove", "Purge"} {
		for route, organizations := range routes {
			t.Run(verb+"/"+route, func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }}, func(t *testing.T, b *testkit.Rig) {
					b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("grace@example.com").ID, "org:admin")
					_, err := b.InviteInto(t, "grace@example.com", clerkinvite.Organization{}) // shows that the key is right
					require.NoError(t, err)
					for _, id := range []string{"org_1", "org_2", "org_deleted"} {
						b.Clerk.AddOrganization(id, clerkinvitetest.OrganizationSpec{})
					}
					var invitations []clerkinvite.Invitation
					for i, id := range organizations {
						p := testkit.Params("acme", "ada@example.com")
						if id != "" {
							p.Organization = &clerkinvite.Organization{ID: id}
						}
						m, err := b.Invite(t.Context(), p)
						require.NoError(t, err)
						require.Equal(t, i+1, m.Send)
						if i == len(organizations)-1 {
							break
						}
						invitations = append(invitations, b.Clerk.OpenInvitations("ada@example.com")...)
						_, err = b.Revoke(t.Context(), testkit.Ada)
						require.NoError(t, err)
						b.Clock.Advance(time.Hour)
					}
					for _, inv := range invitations { // a request that was sent before arrives
						var metadata map[string]any
						require.NoError(t, json.Unmarshal(inv.PublicMetadata, &metadata))
						switch inv.OrganizationID {
						case "":
							b.Clerk.CreateForeign(inv.Email, metadata)
						case "org_deleted":
							b.Clerk.DeleteOrganization("org_deleted")
						case organizations[len(organizations)-1]: // has an invitation
						default:
							b.Clerk.CreateInDashboard(inv.OrganizationID, inv.Email, "org:member", metadata)
						}
					}
					require.GreaterOrEqual(t, len(b.Clerk.OpenInvitations("ada@example.com")), 1)
					_, err = refVerbs[verb](t.Context(), b, testkit.Ada)
					require.NoError(t, err)
					require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
				})
			})
		}
	}
}

// Two tenants wait for one invitation, which was accepted. Removing the member of one tenant, even if only a resend has found out that
// the person joined, ends the membership, so the other tenant's member has left the organization.
func TestOrganization_SharedInvitationAccepted(t *testing.T) {
	t.Parallel()
	for _, resend := range []bool{false, true} {
		t.Run(fmt.Sprintf("resend %v", resend), func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("grace@example.com").ID, "org:admin")
				require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "grace@example.com").Status)
				first := b.MustInvite(t, "ada@example.com")
				second, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
				require.NoError(t, err)
				require.Equal(t, first.InvitationID, second.InvitationID)
				b.Clock.Advance(time.Hour)
				require.NoError(t, b.Clerk.AcceptOrganization(first.InvitationID, b.Clerk.AddVerifiedUser("ada@example.com").ID))
				if resend {
					active, err := b.Resend(t.Context(), first.Ref())
					require.NoError(t, err)
					require.Equal(t, clerkinvite.StatusActive, active.Status)
				}
				_, err = b.Remove(t.Context(), first.Ref())
				require.NoError(t, err)
				require.Len(t, b.Clerk.Members(org), 1)
				b.Clock.Advance(time.Hour)
				b.MustReconcile(t)
				now, err := b.Get(t.Context(), second.Ref())
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRemoved, now.Status)
				require.Equal(t, clerkinvite.ReasonLeftOrganization, now.Reason)
			})
		})
	}
}

// The member is the organization's last admin, whom Clerk does not remove. So neither Revoke nor Remove ends the member, and it becomes
// active if it was not.
func TestOrganization_LastAdminStays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		verb  string
		added bool
	}{{"Revoke", true}, {"Remove", true}, {"Remove", false}} { // Revoke ends only a membership that AddExisting may have added
		t.Run(fmt.Sprintf("%s/added %v", test.verb, test.added), func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				if test.added {
					b.Clerk.AddVerifiedUser("ada@example.com")
					b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallAddMember, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
					_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{AddExisting: true, Role: "org:admin"})
					require.Error(t, err)
				} else {
					b.MustInvite(t, "ada@example.com")
					b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("ada@example.com").ID, "org:admin")
				}
				_, err := refVerbs[test.verb](t.Context(), b, testkit.Ada)
				require.ErrorIs(t, err, clerkinvite.ErrLastAdmin)
				status, text := clerkinvite.HTTPError(err)
				require.Equal(t, http.StatusConflict, status)
				require.Equal(t, "the organization needs another admin first", text)
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
				require.Len(t, b.Clerk.Members(org), 1)
			})
		})
	}
}

// What a verb for a pending member does to another tenant's member that waits for the same invitation. Either of the two
// may have created it. If the first member no longer waits, the invitation stays.
func TestOrganization_SharedInvitationOfWithdrawnMembers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Revoke", "Remove", "Resend", "Purge", "Purge after removal"} {
		for _, creator := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/of the creator %v", name, creator), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.ResendCooldown = -1 }}, func(t *testing.T, b *testkit.Rig) {
					m := b.MustInvite(t, "ada@example.com")
					other, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org}})
					require.NoError(t, err)
					require.Equal(t, m.InvitationID, other.InvitationID)
					if !creator {
						m, other = other, m
					}
					want := clerkinvite.StatusRevoked
					verb, removed := strings.CutSuffix(name, " after removal")
					if removed {
						removeAsSecondAddress(t, b, m.Ref())
						want = clerkinvite.StatusPending
					}
					_, err = refVerbs[verb](t.Context(), b, m.Ref())
					require.NoError(t, err)
					b.MustReconcile(t)
					now, err := b.Get(t.Context(), other.Ref())
					require.NoError(t, err)
					require.Equal(t, want, now.Status)
				})
			})
		}
	}
}

// The person has accepted the invitation and left. In the meantime the organization has a pending invitation of another tenant's member or
// of the dashboard, and Clerk refuses a second one. A resend replaces it, so that the person gets an email.
func TestOrganization_ResendReplacesAnotherInvitation(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		for _, dashboard := range []bool{false, true} {
			t.Run(fmt.Sprintf("response lost %v/dashboard %v", lost, dashboard), func(t *testing.T) {
				t.Parallel()
				eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
					other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
					require.NoError(t, err)
					m := b.MustInvite(t, "ada@example.com")
					require.Equal(t, other.InvitationID, m.InvitationID)
					acceptAndLeave(t, b, m)
					if dashboard {
						b.Clerk.CreateInDashboard(org, "ada@example.com", "org:admin", nil)
					} else {
						_, err = b.Resend(t.Context(), other.Ref())
						require.NoError(t, err)
					}
					b.Clock.Advance(time.Hour)

					emails := b.Clerk.EmailsTo("ada@example.com")
					if lost {
						b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
					}
					_, err = b.Resend(t.Context(), m.Ref())
					require.Equal(t, lost, err != nil)
					b.Clock.Advance(time.Hour)
					_, err = b.Deliver(t.Context(), nil)
					require.NoError(t, err)

					got := b.Member(t, "ada@example.com")
					require.Equal(t, clerkinvite.StatusPending, got.Status)
					require.Equal(t, emails+1, b.Clerk.EmailsTo("ada@example.com"))
					open := b.Clerk.OpenInvitations("ada@example.com")
					require.Len(t, open, 1)
					require.Equal(t, got.InvitationID, open[0].ID)
					b.MustReconcile(t)
					now, err := b.Get(t.Context(), other.Ref())
					require.NoError(t, err)
					require.Equal(t, map[bool]clerkinvite.Status{false: clerkinvite.StatusRevoked, true: clerkinvite.StatusPending}[dashboard], now.Status)
				})
			})
		}
	}
}

// An invitation without metadata is younger than the resend, whose first create may have been carried out. It may be this send's, so the
// member waits for it.
func TestOrganization_ResendKeepsItsUnmarkedInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		acceptAndLeave(t, b, m)
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: clerkinvitetest.Before, Kind: clerkinvitetest.Reset})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		unmarked := b.Clerk.CreateInDashboard(org, "ada@example.com", "org:admin", nil)
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, unmarked.ID, b.Member(t, "ada@example.com").InvitationID)
	})
}

// Two tenants resend at the same time. One of the creates is refused as a duplicate, and its next attempt replaces the other's invitation.
func TestOrganization_ResendAgainstAnotherTenantsResend(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		var raced atomic.Bool
		b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, at clerkinvitetest.When) {
			if call == clerkinvitetest.CallOrganizationCreate && at == clerkinvitetest.Before && !raced.Swap(true) {
				_, err := b.Resend(context.WithoutCancel(ctx), other.Ref())
				assert.NoError(t, err)
			}
		})
		_, err = b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		require.True(t, b.Member(t, "ada@example.com").Due())
		b.Clock.Advance(time.Hour)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		got, open := b.Member(t, "ada@example.com"), b.Clerk.OpenInvitations("ada@example.com")
		require.Equal(t, clerkinvite.StatusPending, got.Status)
		require.Len(t, open, 1)
		require.Equal(t, got.InvitationID, open[0].ID)
		require.Equal(t, 3, b.Clerk.EmailsTo("ada@example.com"))
	})
}

// acceptAndLeave lets the member's person join the organization and leave it, and an hour pass. The webhooks are late.
func acceptAndLeave(t *testing.T, b *testkit.Rig, m *clerkinvite.Member) {
	t.Helper()
	u := b.Clerk.AddVerifiedUser(m.Email)
	require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
	b.Clerk.LeaveOrganization(org, u.ID)
	b.Clock.Advance(time.Hour)
}

// Clerk does not know an invitation anymore. It has listed the organization's invitations, so the key is right.
func TestOrganization_UnknownInvitation(t *testing.T) {
	t.Parallel()
	for _, resend := range []bool{false, true} {
		t.Run(fmt.Sprintf("resend %v", resend), func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{Organization: org})
			adopted, err := b.Adopt(t.Context(), []clerkinvite.AdoptParams{{
				InviteParams: clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org}},
				ClerkUserID:  clerkinvite.PendingID("orginv_unknown"),
			}})
			require.NoError(t, err)
			require.NoError(t, adopted[0].Err)
			b.Clock.Advance(time.Hour)
			if resend {
				_, err = b.Resend(t.Context(), testkit.Ada)
				require.NoError(t, err)
				b.RequireInvited(t, "ada@example.com", 1)
				return
			}
			m, err := b.Revoke(t.Context(), testkit.Ada)
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusRevoked, m.Status)
		})
	}
}

// The older invitation cannot be revoked because Clerk does not know it yet. The resend waits, and does not refuse the person.
func TestOrganization_ResendOfAnUnknownInvitation(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	api := &strangeAPI{Clerk: clerk}
	b := testkit.New(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.ResendCooldown = time.Minute }}, clerk, api, clerkinvitetest.NewMemoryStore())
	m := b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(2 * time.Minute)
	api.revoke = func(string) (*clerkinvite.Invitation, error) {
		return nil, &clerkinvite.APIError{StatusCode: 404, Code: "resource_not_found"}
	}
	api.list = func([]clerkinvite.Invitation) []clerkinvite.Invitation { return nil }
	_, err := b.Resend(t.Context(), m.Ref())
	var clerkErr *clerkinvite.ClerkInvitationError
	require.ErrorAs(t, err, &clerkErr)
	require.True(t, clerkErr.Queued())
	api.revoke, api.list = nil, nil
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, b.RequireInvited(t, "ada@example.com", 2).Sent)
}

// The person has accepted the older invitation before a resend can revoke it. A member of the organization becomes active.
// Otherwise the new invitation is sent: a resend never ends as pending without an email.
func TestPromise3_OrganizationAcceptedBeforeResend(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	accept := func(t *testing.T, b *testkit.Rig) string {
		t.Helper()
		u := b.Clerk.AddVerifiedUser(email).ID
		assert.NoError(t, b.Clerk.AcceptOrganization(b.Clerk.OpenInvitations(email)[0].ID, u))
		return u
	}
	for name, test := range map[string]struct {
		before, revoking func(t *testing.T, b *testkit.Rig)
		emails           int
	}{
		"during the call": {revoking: func(t *testing.T, b *testkit.Rig) { t.Helper(); accept(t, b) }, emails: 1},
		"and left": {emails: 2, before: func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clerk.LeaveOrganization(org, accept(t, b))
		}},
		"by another address": {emails: 2, before: func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			_, err := b.Clerk.AcceptAs(email, "ada@other.example")
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				m := b.MustInvite(t, email)
				b.Clock.Advance(time.Hour)
				if test.before != nil {
					test.before(t, b)
				}
				b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
					if c == clerkinvitetest.CallOrganizationRevoke && w == clerkinvitetest.Before && test.revoking != nil {
						test.revoking(t, b)
					}
				})
				got, err := b.Resend(t.Context(), m.Ref())
				require.NoError(t, err)
				require.Equal(t, test.emails, b.Clerk.EmailsTo(email))
				require.Equal(t, test.emails, b.Clerk.Requests()[clerkinvitetest.CallOrganizationCreate])
				if test.emails == 1 {
					require.Equal(t, clerkinvite.StatusActive, got.Status)
					return
				}
				require.Equal(t, clerkinvite.StatusPending, got.Status)
				open := b.Clerk.OpenInvitations(email)
				require.Len(t, open, 1)
				require.Equal(t, got.InvitationID, open[0].ID)
			})
		})
	}
}

// Clerk's list of memberships does not show yet that the person has accepted. They get no other email.
func TestPromise3_OrganizationAcceptedBeforeResend_Lag(t *testing.T) {
	t.Parallel()
	for _, withdraw := range []bool{false, true} {
		t.Run(fmt.Sprint("withdraw on failure ", withdraw), func(t *testing.T) {
			t.Parallel()
			clerk := clerkinvitetest.NewClerk()
			api := &strangeAPI{Clerk: clerk}
			b := testkit.New(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = withdraw }}, clerk, api, clerkinvitetest.NewMemoryStore())
			m := b.MustInvite(t, "ada@example.com")
			b.Clock.Advance(time.Hour)
			require.NoError(t, clerk.AcceptOrganization(m.InvitationID, clerk.AddVerifiedUser("ada@example.com").ID))
			api.members = func([]clerkinvite.Membership) []clerkinvite.Membership { return nil }
			_, err := b.Resend(t.Context(), m.Ref())
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, err, &clerkErr)
			require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
			require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
			require.Equal(t, !withdraw, b.Member(t, "ada@example.com").Due())

			api.members = nil
			b.Clock.Advance(2 * time.Minute)
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			b.MustReconcile(t)
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
			require.Equal(t, 1, clerk.EmailsTo("ada@example.com"))
		})
	}
}

// Clerk rejects a bulk request because the organization is full, but keeps the invitations for which it has seats. Their
// members adopt them, and only the others are refused.
func TestPromise3_OrganizationFullKeepsPart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		behavior clerkinvitetest.Behavior
		people   int
		before   func(c *clerkinvitetest.Clerk)
	}{
		"keeps none":             {people: 25},
		"keeps part":             {people: 25, behavior: clerkinvitetest.Behavior{BulkKeepsPartial: true}},
		"keeps part, other code": {people: 25, behavior: clerkinvitetest.Behavior{BulkKeepsPartial: true, OrganizationInsufficientSeats: true}},
		"counts seats first": {people: 20, behavior: clerkinvitetest.Behavior{BulkKeepsPartial: true}, before: func(c *clerkinvitetest.Clerk) {
			c.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, Status: 402, Code: "insufficient_seats", Times: -1})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(test.behavior)
				b.Clerk.AddOrganization("org_small", clerkinvitetest.OrganizationSpec{MaxMembers: 14})
				if test.before != nil {
					test.before(b.Clerk)
				}
				people := testkit.People(test.people, "p")
				for i := range people {
					people[i].Organization = &clerkinvite.Organization{ID: "org_small"}
				}
				results, err := b.InviteMany(t.Context(), people, nil)
				require.NoError(t, err)
				invited := 0
				for _, r := range results {
					m := b.Member(t, r.Member.Email)
					open := b.Clerk.OpenInvitations(m.Email)
					require.Equal(t, len(open), b.Clerk.EmailsTo(m.Email), "every email has a link that works")
					if len(open) == 0 {
						require.Equal(t, clerkinvite.StatusFailed, m.Status)
						require.Equal(t, clerkinvite.ReasonOrganizationFull, m.Reason)
						continue
					}
					invited++
					require.NoError(t, r.Err)
					require.Equal(t, clerkinvite.StatusPending, m.Status)
					require.Equal(t, open[0].ID, m.InvitationID)
				}
				require.Equal(t, 14, invited)
			})
		})
	}
}

// If the organization is the reason of a refusal, the admin's text says so.
func TestOrganization_RefusalNamesTheOrganization(t *testing.T) {
	t.Parallel()
	const missing = "Clerk does not have this organization"
	for name, test := range map[string]struct {
		behavior clerkinvitetest.Behavior
		arrange  func(c *clerkinvitetest.Clerk)
		o        clerkinvite.Organization
		want     string
		reason   string // "" if it is Clerk's code
	}{
		"full": {o: clerkinvite.Organization{ID: "org_full"}, want: "the organization has no free seat", reason: clerkinvite.ReasonOrganizationFull},
		"plan is full": {
			behavior: clerkinvitetest.Behavior{OrganizationInsufficientSeats: true}, o: clerkinvite.Organization{ID: "org_full"},
			want: "the organization has no free seat", reason: clerkinvite.ReasonOrganizationFull,
		},
		"deleted":      {arrange: func(c *clerkinvitetest.Clerk) { c.DeleteOrganization(org) }, o: clerkinvite.Organization{ID: org}, want: missing},
		"unauthorized": {behavior: clerkinvitetest.Behavior{OrganizationUnauthorized: true}, o: clerkinvite.Organization{ID: "org_unknown"}, want: missing},
		"not enabled":  {arrange: (*clerkinvitetest.Clerk).DisableOrganizations, o: clerkinvite.Organization{ID: org}, want: missing},
		"role":         {o: clerkinvite.Organization{ID: org, Role: "org:unknown"}, want: "the organization does not have this role"},
		"inviter":      {o: clerkinvite.Organization{ID: org, Inviter: "user_stranger"}, want: "the inviter is not an admin of the organization"},
		"address": {arrange: func(c *clerkinvitetest.Clerk) {
			c.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, Status: 403, Code: "not_allowed_access"})
		}, o: clerkinvite.Organization{ID: org}, want: "invitation refused for this address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.SetBehavior(test.behavior)
				b.Clerk.AddOrganization("org_full", clerkinvitetest.OrganizationSpec{MaxMembers: 1})
				b.Clerk.JoinOrganization("org_full", b.Clerk.AddVerifiedUser("admin@example.com").ID, "org:admin")
				if test.arrange != nil {
					test.arrange(b.Clerk)
				}
				_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "ada@example.com", Organization: &test.o})
				status, message := clerkinvite.HTTPError(err)
				require.Equal(t, 422, status, "%v", err)
				require.Equal(t, test.want, message)
				var stored *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &stored)
				require.Equal(t, clerkinvite.StatusFailed, stored.Member.Status)
				var api *clerkinvite.APIError
				require.ErrorAs(t, err, &api)
				require.Equal(t, cmp.Or(test.reason, api.Code), stored.Member.Reason)
			})
		})
	}
}

// An empty list of memberships removes no member.
func TestOrganization_ReconcileEmptyList(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		id := b.Clerk.AddVerifiedUser("ada@example.com").ID
		b.Clerk.JoinOrganization(org, id, "org:admin")
		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.Clerk.LeaveOrganization(org, id) // as a response that leaves everybody out
		require.Zero(t, b.MustReconcile(t).Removed)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
	})
}

// The organization was deleted at Clerk, with its invitations and memberships. Its members can still be revoked, removed, and
// purged, if Clerk shows something else of this database. Otherwise the key may be another instance's.
func TestOrganization_Deleted(t *testing.T) {
	t.Parallel()
	const email = "ada@example.com"
	states := map[clerkinvite.Status]func(t *testing.T, b *testkit.Rig){
		clerkinvite.StatusReserved: func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, When: clerkinvitetest.After, Kind: clerkinvitetest.Reset})
			_, err := b.TryInvite(t, email)
			require.Error(t, err)
		},
		clerkinvite.StatusPending: func(t *testing.T, b *testkit.Rig) { t.Helper(); b.MustInvite(t, email) },
		clerkinvite.StatusActive: func(t *testing.T, b *testkit.Rig) {
			t.Helper()
			b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser(email).ID, "org:admin")
			b.MustInvite(t, email)
		},
	}
	verbs := map[string]func(b *testkit.Rig) error{
		"revoke": func(b *testkit.Rig) error { _, err := b.Revoke(context.Background(), testkit.Ada); return err },
		"remove": func(b *testkit.Rig) error { _, err := b.Remove(context.Background(), testkit.Ada); return err },
		"purge":  func(b *testkit.Rig) error { return b.Purge(context.Background(), testkit.Ada) },
	}
	for status, arrange := range states {
		for verb, do := range verbs {
			for _, unauthorized := range []bool{false, true} {
				for _, known := range []bool{false, true} {
					if status == clerkinvite.StatusActive && (verb == "revoke" || !known) {
						continue // it cannot be revoked, and its user shows that the key is right
					}
					t.Run(fmt.Sprintf("%s/%s/unauthorized %v/known %v", status, verb, unauthorized, known), func(t *testing.T) {
						t.Parallel()
						b := testkit.NewMemory(t, testkit.Options{Organization: org})
						b.Clerk.SetBehavior(clerkinvitetest.Behavior{OrganizationUnauthorized: unauthorized})
						arrange(t, b)
						if known {
							b.Clerk.AddOrganization("org_globex", clerkinvitetest.OrganizationSpec{})
							_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: email, Organization: &clerkinvite.Organization{ID: "org_globex"}})
							require.NoError(t, err)
						}
						b.Clock.Advance(time.Hour)
						b.Clerk.DeleteOrganization(org)
						require.Equal(t, known, do(b) == nil)
						m, err := b.Get(t.Context(), testkit.Ada)
						switch {
						case !known:
							require.NoError(t, err)
							require.Equal(t, status, m.Status)
						case verb == "purge":
							require.ErrorIs(t, err, clerkinvite.ErrNotFound)
						default:
							require.NoError(t, err)
							require.Equal(t, map[string]clerkinvite.Status{"revoke": clerkinvite.StatusRevoked, "remove": clerkinvite.StatusRemoved}[verb], m.Status)
						}
					})
				}
			}
		}
	}
}

// Once Clerk has refused everybody for an organization, the rest of a list costs no requests.
func TestOrganization_RefusedListCostsFewRequests(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		people := testkit.People(100, "p")
		for i := range people {
			people[i].Organization = &clerkinvite.Organization{ID: "org_unknown"}
		}
		results, err := b.InviteMany(t.Context(), people, nil)
		require.NoError(t, err)
		for _, r := range results {
			var clerkErr *clerkinvite.ClerkInvitationError
			require.ErrorAs(t, r.Err, &clerkErr)
			require.Equal(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
		}
		requests := b.Clerk.Requests()
		require.Equal(t, 1, requests[clerkinvitetest.CallOrganizationCreateBulk])
		require.Equal(t, 1, requests[clerkinvitetest.CallOrganizationCreate])
		require.Equal(t, 10, requests[clerkinvitetest.CallOrganizationList], "for the ten in the bulk request, whose effect is unknown")
	})
}

func TestOrganization_Refusals(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]clerkinvite.Organization{
		"unknown organization": {ID: "org_unknown"},
		"unknown role":         {ID: org, Role: "org:owner"},
		"inviter no admin":     {ID: org, Inviter: "user_1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", Organization: &o})
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &clerkErr)
				require.Equal(t, clerkinvite.OutcomeRefused, clerkErr.Outcome)
				require.Equal(t, clerkinvite.StatusFailed, b.Member(t, "ada@example.com").Status)
				require.Equal(t, clerkinvite.StatusPending, b.MustInvite(t, "joan@example.com").Status)
			})
		})
	}
}

func TestOrganization_InvalidParams(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{Organization: org})
	for field, p := range map[string]clerkinvite.InviteParams{
		"Organization.ID":      {Organization: &clerkinvite.Organization{ID: "org/../x"}},
		"Organization.Role":    {Organization: &clerkinvite.Organization{ID: org, Role: "a\nb"}},
		"Organization.Inviter": {Organization: &clerkinvite.Organization{ID: org, Inviter: "user 1"}},
		"Template":             {Organization: &clerkinvite.Organization{ID: org}, Template: "invitation"},
	} {
		p.TenantID, p.Email = "acme", "ada@example.com"
		_, err := b.Invite(t.Context(), p)
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
	require.Zero(t, b.Clerk.RequestCount())
}

// applicationAPI is the mock of a host without organizations, with exactly the methods that ClerkAPI has had from the beginning.
type applicationAPI struct {
	t    *testing.T
	real clerkinvite.ClerkAPI
}

func (a applicationAPI) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	return a.real.FindUsers(ctx, q)
}

func (a applicationAPI) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	return a.real.GetUser(ctx, id)
}

func (a applicationAPI) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	assert.Empty(a.t, r.OrganizationID+r.Role+r.Inviter)
	return a.real.CreateInvitation(ctx, r)
}

func (a applicationAPI) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	for _, r := range rs {
		assert.Empty(a.t, r.OrganizationID+r.Role+r.Inviter)
	}
	return a.real.CreateInvitations(ctx, rs)
}

func (a applicationAPI) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	assert.False(a.t, q.OrganizationID != "" || q.AllOrganizations)
	return a.real.ListInvitations(ctx, q)
}

func (a applicationAPI) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	assert.Empty(a.t, r.OrganizationID)
	return a.real.RevokeInvitation(ctx, r)
}

// A host without organizations needs no method of OrganizationAPI, no Config.Organizations and no organizations at Clerk: every
// verb works, and none asks about organizations.
func TestHostWithoutOrganizationsNeedsNothingNew(t *testing.T) {
	t.Parallel()
	require.NotImplements(t, (*clerkinvite.OrganizationAPI)(nil), applicationAPI{})
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx, seen := t.Context(), &recorder{}
		var err error
		b.Service, err = clerkinvite.New(clerkinvite.Config{API: applicationAPI{t, b.API}, Store: b.Store, Now: b.Clock.Now, Observer: seen})
		require.NoError(t, err)
		b.Clerk.DisableOrganizations()
		noError := func(_ any, err error) {
			t.Helper()
			require.NoError(t, err)
		}
		join := func(email string) (hook clerkinvitetest.Webhook, u clerkinvite.User) {
			t.Helper()
			hook, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			e, err := clerkinvite.ParseEvent(hook.Payload)
			require.NoError(t, err)
			return hook, *e.User
		}

		b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		noError(b.Resend(ctx, testkit.Ada))
		noError(b.Link(ctx, testkit.Ada))
		hook, _ := join("ada@example.com")
		require.Len(t, b.Receive(t, hook), 1)
		ada := b.Member(t, "ada@example.com")
		require.Equal(t, clerkinvite.StatusActive, ada.Status)
		role := "admin"
		noError(b.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role}))
		noError(b.ByUser(ctx, ada.ClerkUserID))
		noError(b.History(ctx, testkit.Ada))

		b.Clerk.AddVerifiedUser("user@example.com")
		require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "user@example.com").Status)
		noError(b.Reserve(ctx, testkit.Params("acme", "bob@example.com")))
		noError(b.ReserveMany(ctx, testkit.People(12, "p")))
		noError(b.DeliverMembers(ctx, []clerkinvite.Ref{testkit.Acme("bob@example.com")}))
		noError(b.Deliver(ctx, nil))
		b.RequireEachInvitedOnce(t, testkit.People(12, "p"))
		noError(b.InviteMany(ctx, testkit.People(3, "q"), nil))
		noError(b.Adopt(ctx, []clerkinvite.AdoptParams{{InviteParams: testkit.Params("acme", "old@example.com"), ClerkUserID: b.Clerk.AddVerifiedUser("old@example.com").ID}}))

		_, u := join("p0@example.com")
		noError(b.Resolve(ctx, u))
		_, u = join("p1@example.com")
		noError(b.ResolveUser(ctx, u.ID))
		join("p2@example.com")
		require.Equal(t, 1, b.MustReconcile(t).Activated)

		noError(b.Revoke(ctx, testkit.Acme("bob@example.com")))
		noError(b.Remove(ctx, testkit.Ada))
		require.NoError(t, b.Purge(ctx, testkit.Ada))
		noError(b.Counts(ctx, "acme"))
		all := 0
		for _, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme"}) {
			require.NoError(t, err)
			all++
		}
		require.Equal(t, 18, all)

		for call := range b.Clerk.Requests() {
			require.NotContains(t, call, "organization")
		}
		called := seen.take()
		service := reflect.TypeFor[*clerkinvite.Service]()
		for i := range service.NumMethod() {
			if name := service.Method(i).Name; !slices.Contains([]string{"Format", "InTx", "WebhookHandler", "All", "Run"}, name) {
				require.Contains(t, called, name)
			}
		}
	})
}

// If the host has forgotten Config.Organizations, admins are not told that their input is wrong.
func TestOrganization_NotConfigured(t *testing.T) {
	t.Parallel()
	const text = "clerkinvite: Config.Organizations is missing: set it to the result of clerkapi.New"
	b := testkit.NewMemory(t, testkit.Options{})
	p := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", Organization: &clerkinvite.Organization{ID: org}}
	_, invite := b.Invite(t.Context(), p)
	_, reserve := b.Reserve(t.Context(), p)
	many, err := b.InviteMany(t.Context(), []clerkinvite.InviteParams{p}, nil)
	require.NoError(t, err)
	adopted, err := b.Adopt(t.Context(), []clerkinvite.AdoptParams{{InviteParams: p, ClerkUserID: "user_ada"}})
	require.NoError(t, err)
	for _, err := range []error{invite, reserve, many[0].Err, adopted[0].Err} {
		require.EqualError(t, err, text)
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, http.StatusInternalServerError, status)
		require.Equal(t, "internal server error", message)
	}
	require.Zero(t, b.Clerk.RequestCount())
	require.Empty(t, b.MembersByRef(t))
}

// Without Config.Organizations, Remove does not revoke the invitation of a member that it cannot remove.
func TestOrganization_RemoveByAProcessWithout(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		b.Clerk.AddVerifiedUser("ada@example.com")
		_, err := b.Workers(t, 1)[0].Remove(t.Context(), testkit.Ada)
		require.ErrorContains(t, err, "Config.Organizations is missing")
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "ada@example.com").Status)
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
	})
}

// A process without Config.Organizations delivers members of organizations. They wait for another process, and hold up no others.
func TestOrganization_DeliveredByAProcessWithout(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		reserveUsers(t, b, org, 3)
		without := b.Workers(t, 1)[0]
		_, err := without.Reserve(t.Context(), testkit.Params("globex", "ada@example.com"))
		require.NoError(t, err)
		for range 10 {
			report, err := without.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Zero(t, report.Refused)
			b.Clock.Advance(2 * time.Hour)
		}
		require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
		report, err := b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 3, report.Linked)
		_, err = without.Remove(t.Context(), testkit.Acme("p0@example.com"))
		require.ErrorContains(t, err, "Config.Organizations is missing")
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "p0@example.com").Status)
	})
}

// Without Config.Organizations, a call that delivers to an existing user returns the same error as the others.
func TestOrganization_ResendByAProcessWithout(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		_, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{})
		require.NoError(t, err)
		b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clock.Advance(2 * time.Hour)
		_, err = b.Workers(t, 1)[0].Resend(t.Context(), testkit.Acme("ada@example.com"))
		require.EqualError(t, err, "clerkinvite: Config.Organizations is missing: set it to the result of clerkapi.New")
		status, _ := clerkinvite.HTTPError(err)
		require.Equal(t, http.StatusInternalServerError, status)
		require.True(t, b.Member(t, "ada@example.com").Due(), "another process delivers it")
	})
}

// Config.Organizations may be set for an instance without organizations.
func TestOrganization_ReconcileInstanceWithoutOrganizations(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.DisableOrganizations()
		b.Clerk.CreateForeign("stranger@example.com", nil)
		require.NotZero(t, b.MustReconcile(t).Invitations, "those into the application")
	})
}

// A process has met the limit of creates for organizations. Another process, which has not, does not revoke the older
// invitation of a resend before the limit ends.
func TestOrganization_LimitOfAnotherProcessKeepsTheOlderInvitation(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		b.Clock.Advance(time.Hour)
		b.Clerk.Fail(clerkinvitetest.Fault{
			Call: clerkinvitetest.CallOrganizationRevoke, Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: time.Minute,
		})
		_, err := b.Resend(t.Context(), m.Ref())
		require.Error(t, err)
		require.True(t, b.Member(t, "ada@example.com").Due())
		b.Clock.Advance(10 * time.Minute)
		b.Clerk.Fail(clerkinvitetest.Fault{
			Call: clerkinvitetest.CallOrganizationCreate, Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: 40 * time.Minute,
		})
		b.MustInvite(t, "grace@example.com") // by the bulk endpoint
		other := b.Workers(t, 1)[0]
		_, err = other.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.True(t, b.Member(t, "ada@example.com").Due())
		require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1, "the older invitation still works")
		b.Clock.Advance(time.Hour)
		_, err = other.Deliver(t.Context(), nil)
		require.NoError(t, err)
		require.NotEqual(t, m.InvitationID, b.RequireInvited(t, "ada@example.com", 2).InvitationID)
	})
}

// An attempt to resend has revoked the older invitation, and has failed before it has created the new one. If the next
// attempt does not create one either, the member does not wait for the revoked invitation.
func TestOrganization_UnfinishedResend(t *testing.T) {
	t.Parallel()
	for name, withdraw := range map[string]bool{"only attempt": true, "next attempt refused": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clerk, store := clerkinvitetest.NewClerk(), &testkit.FaultyStore{Store: clerkinvitetest.NewMemoryStore()}
			b := testkit.New(t, testkit.Options{Organization: org, Configure: func(cfg *clerkinvite.Config) { cfg.WithdrawOnFailure = withdraw }}, clerk, clerk, store)
			user := clerk.AddVerifiedUser("ada@example.com").ID
			m := b.MustInvite(t, "ada@example.com")
			require.Equal(t, clerkinvite.StatusPending, m.Status)
			b.Clock.Advance(time.Hour)

			clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationCreate, Kind: clerkinvitetest.Reset})
			store.Fail(errors.New("the database is down"), false)
			_, err := b.Resend(t.Context(), m.Ref())
			require.Error(t, err)
			store.Fail(nil, false)
			require.Empty(t, clerk.OpenInvitations("ada@example.com"))
			clerk.BanUser(user)
			b.Clock.Advance(time.Hour)

			// While Clerk does not say what the older invitation is, the member waits.
			clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallOrganizationList, Kind: clerkinvitetest.JSON500, Times: -1})
			_, err = b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.True(t, b.Member(t, "ada@example.com").Due())
			clerk.ClearFaults()
			b.Clock.Advance(2 * time.Hour)

			report, err := b.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.Equal(t, 1, report.Claimed)
			m = b.Member(t, "ada@example.com")
			require.Equal(t, clerkinvite.StatusRevoked, m.Status)
			require.False(t, m.Due())
			require.Equal(t, 1, clerk.EmailsTo("ada@example.com"))
		})
	}
}

// Clerk says that organizations are disabled, or the key is another instance's. A resend has revoked nothing, so the member keeps waiting
// for the older invitation, and for the new one.
func TestOrganization_ResendWithAnotherInstance(t *testing.T) {
	t.Parallel()
	for name, disabled := range map[string]bool{"organizations disabled": true, "another instance's key": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				b.Clerk.JoinOrganization(org, b.Clerk.AddVerifiedUser("grace@example.com").ID, "org:admin")
				b.MustInvite(t, "grace@example.com") // her user shows that the key is right, if it is
				m := b.MustInvite(t, "ada@example.com")
				b.Clock.Advance(time.Hour)
				wrong := b
				if disabled {
					b.Clerk.DisableOrganizations()
				} else {
					another := clerkinvitetest.NewClerk()
					wrong = testkit.New(t, testkit.Options{Organization: "org_another"}, another, another, b.Store)
					wrong.Clock.Advance(time.Hour)
				}
				_, err := wrong.Resend(t.Context(), m.Ref())
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &clerkErr)
				require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
				require.True(t, clerkErr.Queued())
				now := b.Member(t, "ada@example.com")
				require.Equal(t, clerkinvite.StatusPending, now.Status)
				require.Equal(t, m.InvitationID, now.InvitationID)
				require.True(t, now.Due())
				require.Len(t, b.Clerk.OpenInvitations("ada@example.com"), 1)
				if disabled {
					return
				}
				b.Clock.Advance(2 * time.Hour)
				_, err = b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.NotEqual(t, m.InvitationID, b.RequireInvited(t, "ada@example.com", 2).InvitationID)
			})
		})
	}
}

// Clerk does not say whether a withdrawn resend can keep the older invitation. The member waits without a claim, as long as
// Clerk says, and then keeps that invitation.
func TestOrganization_WithdrawnResendWaits(t *testing.T) {
	t.Parallel()
	faults := map[time.Duration]clerkinvitetest.Fault{
		10 * time.Second: {Status: http.StatusTooManyRequests, Code: "too_many_requests", RetryAfter: 10 * time.Second},
		time.Minute:      {Status: http.StatusPaymentRequired, Code: "insufficient_seats"}, // says nothing about the organization's invitations
	}
	for wait, fault := range faults {
		t.Run(fault.Code, func(t *testing.T) {
			t.Parallel()
			testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.WithdrawOnFailure = true }}, func(t *testing.T, b *testkit.Rig) {
				m := b.MustInvite(t, "ada@example.com")
				b.Clock.Advance(time.Hour)
				fault := fault // the stores run at the same time
				fault.Call, fault.Times = clerkinvitetest.CallOrganizationList, -1
				b.Clerk.Fail(fault)
				_, err := b.Resend(t.Context(), m.Ref())
				var clerkErr *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &clerkErr)
				require.True(t, clerkErr.Queued())
				require.Equal(t, clerkinvite.OutcomeFault, clerkErr.Outcome)
				waits := b.Member(t, "ada@example.com")
				require.Nil(t, waits.ClaimedUntil)
				require.WithinDuration(t, b.Clock.Now().Add(wait), *waits.NextAttemptAt, 5*time.Second)

				b.Clerk.ClearFaults()
				b.Clock.Advance(2 * time.Minute)
				_, err = b.Deliver(t.Context(), nil)
				require.NoError(t, err)
				now := b.Member(t, "ada@example.com")
				require.False(t, now.Due())
				require.Equal(t, clerkinvite.StatusPending, now.Status)
				require.Equal(t, m.InvitationID, now.InvitationID)
				require.Equal(t, 1, b.Clerk.EmailsTo("ada@example.com"))
			})
		})
	}
}

// Clerk knows none of the active members' users. An invitation into an organization shows that the key belongs to the
// right instance, so Reconcile believes it.
func TestOrganization_InvitationShowsTheInstance(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		b.MustInvite(t, "ada@example.com")
		accepted, err := b.Clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.Receive(t, accepted)
		ada := b.Member(t, "ada@example.com")
		require.Equal(t, clerkinvite.StatusActive, ada.Status)
		b.Clock.Advance(time.Hour)
		b.Clerk.DeleteUser(ada.ClerkUserID)
		b.MustInvite(t, "bob@example.com")
		b.MustReconcile(t)
		require.Equal(t, clerkinvite.ReasonUserDeleted, b.Member(t, "ada@example.com").Reason)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "bob@example.com").Status)
	})
}

// An old event says that a user has left, after the user has come back. With the key of another instance, which knows neither
// the organization nor the user, it removes no member. If the organization was deleted, the user is removed.
func TestOrganization_LeftWithAnotherInstancesKey(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		u := b.Clerk.AddVerifiedUser("ada@example.com")
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		b.MustInvite(t, "ada@example.com")
		b.Clerk.LeaveOrganization(org, u.ID)
		events := b.Clerk.OrganizationEvents()
		left, err := clerkinvite.ParseEvent(events[len(events)-1].Payload)
		require.NoError(t, err)
		b.Clerk.JoinOrganization(org, u.ID, "org:member")
		b.Clock.Advance(time.Hour)

		another := clerkinvitetest.NewClerk()
		wrong := testkit.New(t, testkit.Options{Organization: "org_another"}, another, another, b.Store)
		wrong.Clock.Advance(time.Hour)
		changed, err := wrong.HandleEvent(t.Context(), left)
		require.NoError(t, err)
		require.Empty(t, changed)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)

		b.Clerk.DeleteOrganization(org)
		changed, err = b.HandleEvent(t.Context(), left)
		require.NoError(t, err)
		require.Len(t, changed, 1)
		require.Equal(t, clerkinvite.ReasonLeftOrganization, changed[0].Reason)
	})
}

// Whichever code Clerk uses for a deleted organization, the event that a member has left it removes the member.
func TestOrganization_LeftADeletedOrganization(t *testing.T) {
	t.Parallel()
	b := testkit.NewMemory(t, testkit.Options{Organization: org})
	b.Clerk.SetBehavior(clerkinvitetest.Behavior{OrganizationUnauthorized: true})
	u := b.Clerk.AddVerifiedUser("ada@example.com")
	b.Clerk.JoinOrganization(org, u.ID, "org:member")
	b.MustInvite(t, "ada@example.com")
	b.Clock.Advance(time.Hour)
	b.Clerk.LeaveOrganization(org, u.ID)
	b.Clerk.DeleteOrganization(org)
	events := b.Clerk.OrganizationEvents()
	for _, event := range events {
		left, err := clerkinvite.ParseEvent(event.Payload)
		require.NoError(t, err)
		_, err = b.HandleEvent(t.Context(), left)
		require.NoError(t, err)
	}
	require.Equal(t, clerkinvite.ReasonLeftOrganization, b.Member(t, "ada@example.com").Reason)
}

// Another instance's key does not show the membership, the user, or anybody else. A removal that only looks done would
// leave the person in the organization.
func TestOrganization_RemoveWithAnotherInstancesKey(t *testing.T) {
	t.Parallel()
	for name, exists := range map[string]bool{"the organization is unknown": false, "the organization has the same ID": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
				u := b.Clerk.AddVerifiedUser("ada@example.com")
				b.Clerk.JoinOrganization(org, u.ID, "org:member")
				b.MustInvite(t, "ada@example.com")

				another := clerkinvitetest.NewClerk()
				if exists {
					another.AddOrganization(org, clerkinvitetest.OrganizationSpec{})
				}
				wrong := testkit.New(t, testkit.Options{Organization: "org_another"}, another, another, b.Store)
				_, err := wrong.Remove(t.Context(), testkit.Ada)
				var failure *clerkinvite.ClerkInvitationError
				require.ErrorAs(t, err, &failure)
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)

				b.Clerk.LeaveOrganization(org, u.ID)
				removed, err := b.Remove(t.Context(), testkit.Ada)
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRemoved, removed.Status)
			})
		})
	}
}

// The address of a pending member is now the address of an active one. Reconcile frees it and moves the active member. A dry run
// reports the same. The next run checks the moved member's membership, which shows that the list of members is not empty.
func TestOrganization_DryRunOfAMoveToAFreedAddress(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		var users []string
		for _, email := range []string{"ada@example.com", "bob@example.com"} {
			u := b.Clerk.AddVerifiedUser(email)
			b.Clerk.JoinOrganization(org, u.ID, "org:member")
			require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, email).Status)
			users = append(users, u.ID)
		}
		b.MustInvite(t, "ada@example.org")
		b.Clerk.ChangeEmail(users[0], "ada@example.org")
		b.Clerk.LeaveOrganization(org, users[1])
		b.Clock.Advance(time.Hour)
		for _, dry := range []bool{true, false} {
			report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: dry})
			require.NoError(t, err)
			require.Equal(t, []int{1, 1, 0}, []int{report.Removed, report.Moved, len(report.OutOfDate)}, "dry run: %t", dry)
		}
		require.Equal(t, 1, b.MustReconcile(t).Removed)
		require.Equal(t, users[0], b.Member(t, "ada@example.org").ClerkUserID)
		require.Equal(t, clerkinvite.ReasonLeftOrganization, b.Member(t, "bob@example.com").Reason)
	})
}

// People left an organization, and the first visible member of another organization comes 150 members later, or in
// a later call.
func TestOrganization_LeaversFarFromVisibleMembers(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"one call": 0, "many calls": 40} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }})
			join := func(tenant, organization string, n int) (users []string) {
				b.Clerk.AddOrganization(organization, clerkinvitetest.OrganizationSpec{})
				for i := range n {
					email := fmt.Sprintf("%s%d@example.com", tenant, i)
					users = append(users, b.Clerk.AddVerifiedUser(email).ID)
					b.Clerk.JoinOrganization(organization, users[i], "org:member")
					_, err := b.Invite(t.Context(), clerkinvite.InviteParams{
						TenantID: tenant, Email: email, Organization: &clerkinvite.Organization{ID: organization},
					})
					require.NoError(t, err)
				}
				return users
			}
			leavers := join("a", "org_a", 3)
			for i := range 150 {
				email := fmt.Sprintf("m%d@example.com", i)
				b.Clerk.AddVerifiedUser(email)
				_, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "m", Email: email})
				require.NoError(t, err)
			}
			join("z", "org_z", 5)
			b.Clock.Advance(time.Hour)
			for _, id := range leavers[:2] {
				b.Clerk.LeaveOrganization("org_a", id)
			}
			b.Clerk.DeleteUser(leavers[2])

			var total clerkinvite.ReconcileReport
			for cursor := ""; ; {
				report, err := b.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{Limit: limit, Cursor: cursor})
				require.NoError(t, err)
				total.Members, total.Removed = total.Members+report.Members, total.Removed+report.Removed
				if cursor = report.Cursor; cursor == "" {
					break
				}
			}
			require.Equal(t, 158, total.Members)
			require.Equal(t, 3, total.Removed)
			m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "a", Email: "a0@example.com"})
			require.NoError(t, err)
			require.Equal(t, clerkinvite.ReasonLeftOrganization, m.Reason)
		})
	}
}

// The event of an earlier membership arrives late, while Clerk does not show the new membership yet.
func TestOrganization_LateEventKeepsNewMembers(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		id := b.Clerk.AddVerifiedUser(email).ID
		add := func() {
			m, err := b.InviteInto(t, email, clerkinvite.Organization{AddExisting: true})
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusActive, m.Status)
		}
		add()
		b.Clock.Advance(time.Hour)
		b.Clerk.OrganizationEvents()
		_, err := b.Remove(t.Context(), testkit.Acme(email))
		require.NoError(t, err)
		left := b.Clerk.OrganizationEvents()
		require.Len(t, left, 1)
		b.Clock.Advance(10 * time.Second)
		b.Clerk.SetBehavior(clerkinvitetest.Behavior{Lag: true})
		add()

		handle := func() error {
			w := left[0]
			w.At = b.Clock.Now() // as Svix does
			e, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
			require.NoError(t, err)
			_, err = b.HandleEvent(t.Context(), e)
			return err
		}
		require.ErrorIs(t, handle(), clerkinvite.ErrUnconfirmed)
		b.Clock.Advance(3 * time.Minute)
		require.NoError(t, handle(), "not forever")
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)

		b.Clerk.Settle()
		b.Clock.Advance(3 * time.Minute)
		require.NoError(t, handle(), "a replay")
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, email).Status)

		b.Clerk.LeaveOrganization(org, id)
		b.Clerk.Settle()
		require.NoError(t, handle())
		require.Equal(t, clerkinvite.ReasonLeftOrganization, b.Member(t, email).Reason)
	})
}

// Clerk sends two events when a person accepts. While the first one is handled, the second one activates the member.
func TestOrganization_EventsOfOneAcceptance(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, b.Clerk.AddVerifiedUser("ada@example.com").ID))
		events := b.Clerk.OrganizationEvents()
		require.Len(t, events, 2)
		var changed []*clerkinvite.Member
		var called atomic.Bool
		b.Clerk.OnCall(func(_ context.Context, c clerkinvitetest.Call, w clerkinvitetest.When) {
			if c == clerkinvitetest.CallGetUser && w == clerkinvitetest.Before && called.CompareAndSwap(false, true) {
				changed = b.Receive(t, events[1])
			}
		})
		require.Empty(t, b.Receive(t, events[0]))
		require.Len(t, changed, 1)
		require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
	})
}

// joinedAs invites the address into the tenant's organization, and lets a new user accept. It returns the user's ID.
func joinedAs(t *testing.T, b *testkit.Rig, tenant, email string) string {
	t.Helper()
	m, err := b.Invite(t.Context(), testkit.Params(tenant, email))
	require.NoError(t, err)
	u := b.Clerk.AddVerifiedUser(email)
	require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
	_, err = b.ResolveUser(t.Context(), u.ID)
	require.NoError(t, err)
	return u.ID
}

// Another tenant's member is active by the membership, so it stays. The member that Remove ends must not become active in
// the meantime, when the rows are read again.
func TestOrganization_RemoveKeepsAnotherTenantsMembership(t *testing.T) {
	t.Parallel()
	t.Run("both tenants have reserved the user's second address", func(t *testing.T) {
		t.Parallel()
		eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
			user := joinedAs(t, b, "globex", "ada@example.com")
			for _, tenant := range []string{"acme", "globex"} {
				_, err := b.Reserve(t.Context(), testkit.Params(tenant, "lovelace@example.com"))
				require.NoError(t, err)
			}
			b.Clerk.AddEmail(user, clerkinvitetest.EmailSpec{Address: "lovelace@example.com", Verified: true})
			removed, err := b.Remove(t.Context(), testkit.Acme("lovelace@example.com"))
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusRemoved, removed.Status)
			b.RequireMembersAtClerk(t, user)
		})
	})
	t.Run("the other row changes during the call", func(t *testing.T) {
		t.Parallel()
		eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
			other, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com"))
			require.NoError(t, err)
			_, err = b.Reserve(t.Context(), testkit.Params("acme", "ada@example.com"))
			require.NoError(t, err)
			u := b.Clerk.AddVerifiedUser("ada@example.com")
			require.NoError(t, b.Clerk.AcceptOrganization(other.InvitationID, u.ID))
			var calls atomic.Int64
			b.Clerk.OnCall(func(ctx context.Context, call clerkinvitetest.Call, at clerkinvitetest.When) {
				if call == clerkinvitetest.CallMemberships && at == clerkinvitetest.After && calls.Add(1) == 2 {
					role := "viewer"
					_, err := b.Update(context.WithoutCancel(ctx), other.Ref(), clerkinvite.MemberUpdate{Role: &role})
					require.NoError(t, err)
				}
			})
			_, err = b.Remove(t.Context(), testkit.Ada)
			require.NoError(t, err)
			b.RequireMembersAtClerk(t, u.ID)
		})
	})
}

// A tenant invites a member's new address, and then removes the member. The new address stays invited.
func TestOrganization_RemoveLeavesTheTenantsOtherMember(t *testing.T) {
	t.Parallel()
	eachOrganization(t, func(t *testing.T, b *testkit.Rig) {
		user := joinedAs(t, b, "acme", "ada@example.com")
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "lovelace@example.com"))
		require.NoError(t, err)
		b.Clerk.AddEmail(user, clerkinvitetest.EmailSpec{Address: "lovelace@example.com", Verified: true})
		_, err = b.Remove(t.Context(), testkit.Ada)
		require.NoError(t, err)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		b.RequireMembersAtClerk(t)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "lovelace@example.com").Status)
	})
}

// While organizations are disabled at Clerk, their invitations and memberships may still exist. So no verb that must end
// them reports success.
func TestOrganization_EndWhileOrganizationsAreDisabled(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"Revoke", "Remove", "Purge"} {
		for _, active := range []bool{false, true} {
			if active && verb != "Remove" {
				continue // Revoke is not allowed, and Purge does not end a membership
			}
			t.Run(fmt.Sprintf("%s/active %v", verb, active), func(t *testing.T) {
				t.Parallel()
				testkit.Each(t, testkit.Options{Organization: org, Configure: func(c *clerkinvite.Config) { c.Authorize = nil }}, func(t *testing.T, b *testkit.Rig) {
					b.Clerk.AddVerifiedUser("grace@example.com")
					b.MustInvite(t, "grace@example.com") // into the application: shows that the key is right
					m, err := b.InviteInto(t, "ada@example.com", clerkinvite.Organization{})
					require.NoError(t, err)
					if active {
						u := b.Clerk.AddVerifiedUser("ada@example.com")
						require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
						_, err = b.ResolveUser(t.Context(), u.ID)
						require.NoError(t, err)
					}
					for _, call := range []clerkinvitetest.Call{
						clerkinvitetest.CallOrganizationRevoke, clerkinvitetest.CallOrganizationList, clerkinvitetest.CallOrganizationListAll,
						clerkinvitetest.CallMemberships, clerkinvitetest.CallRemoveMember,
					} {
						b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: http.StatusForbidden, Code: "organization_not_enabled_in_instance", Times: -1})
					}
					before := b.Member(t, "ada@example.com")
					_, err = refVerbs[verb](t.Context(), b, testkit.Ada)
					var clerkErr *clerkinvite.ClerkInvitationError
					require.ErrorAs(t, err, &clerkErr)
					require.Equal(t, before.Status, b.Member(t, "ada@example.com").Status)
					b.Clerk.ClearFaults()
					_, err = refVerbs[verb](t.Context(), b, testkit.Ada)
					require.NoError(t, err)
					require.Empty(t, b.Clerk.OpenInvitations("ada@example.com"))
					b.RequireMembersAtClerk(t)
				})
			})
		}
	}
}

// Another tenant's hook does not keep a member from being removed. The membership ends if the member was active by it.
// Otherwise it stays for the other member, which still waits.
func TestOrganization_RemoveBesideAFailingHook(t *testing.T) {
	t.Parallel()
	for _, active := range []bool{true, false} {
		t.Run(fmt.Sprintf("active %v", active), func(t *testing.T) {
			t.Parallel()
			var hook error
			clerk := clerkinvitetest.NewClerk()
			store := refusingStore{clerkinvitetest.NewMemoryStore(), func(next *clerkinvite.Member) error {
				if next.TenantID == "globex" {
					return hook
				}
				return nil
			}}
			b := testkit.New(t, testkit.Options{Organization: org}, clerk, clerk, store)
			m := b.MustInvite(t, "ada@example.com")
			_, err := b.Invite(t.Context(), testkit.Params("globex", "ada@example.com")) // adopts the invitation
			require.NoError(t, err)
			u := clerk.AddVerifiedUser("ada@example.com")
			require.NoError(t, clerk.AcceptOrganization(m.InvitationID, u.ID))
			hook = errors.New("the hook of globex")
			if active {
				_, err = b.ResolveUser(t.Context(), u.ID)
				require.ErrorContains(t, err, "the hook of globex")
				require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
			}
			removed, err := b.Remove(t.Context(), testkit.Ada)
			require.NoError(t, err)
			require.Equal(t, clerkinvite.StatusRemoved, removed.Status)
			b.RequireMembersAtClerk(t)
		})
	}
}

// A tenant has deleted its organization, in which a user was awaited. That does not fail the user's sign-in, whose other tenants
// are resolved, nor the user's webhooks.
func TestOrganization_DeletedWhileAUserIsAwaited(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Organization: testkit.Organization}, func(t *testing.T, b *testkit.Rig) {
		const email = "ada@example.com"
		b.Clerk.AddOrganization("org_other", clerkinvitetest.OrganizationSpec{})
		u := b.Clerk.AddVerifiedUser(email)
		b.MustInvite(t, email)
		other := testkit.Params("other", email)
		other.Organization = &clerkinvite.Organization{ID: "org_other"}
		m, err := b.Invite(t.Context(), other)
		require.NoError(t, err)
		b.Clerk.DeleteOrganization(testkit.Organization)
		require.NoError(t, b.Clerk.AcceptOrganization(m.InvitationID, u.ID))
		b.Clerk.Settle()

		changed, err := b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Len(t, changed, 1)
		require.Equal(t, clerkinvite.StatusActive, changed[0].Status)
		require.Empty(t, b.Receive(t, b.Clerk.UserUpdated(u.ID)))
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, email).Status)

		// After the expiry too.
		b.Clock.Advance(60 * 24 * time.Hour)
		changed, err = b.ResolveUser(t.Context(), u.ID)
		require.NoError(t, err)
		require.Empty(t, changed)
	})
}
