package attacks_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const raceOrganization = "org_acme"

// isMember reports whether a user is a member of the organization.
func isMember(b *testkit.Rig, userID string) bool {
	return slices.ContainsFunc(b.Clerk.Members(raceOrganization), func(m clerkinvite.Membership) bool { return m.UserID == userID })
}

// receiveAll delivers the organization's events.
func receiveAll(t *testing.T, b *testkit.Rig) {
	t.Helper()
	for _, hook := range b.Clerk.OrganizationEvents() {
		if _, err := handleWebhook(t.Context(), b, hook); !errors.Is(err, clerkinvite.ErrUnconfirmed) {
			require.NoError(t, err)
		}
	}
}

// Two operations on an organization's member run at the same time. The row and the membership agree, and each send has one email.
func TestPromise1_OrganizationRaces(t *testing.T) {
	t.Parallel()
	in := testkit.Options{Organization: raceOrganization}
	joined := func(t *testing.T, b *testkit.Rig, email string) {
		t.Helper()
		m := b.Member(t, email)
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.True(t, isMember(b, m.ClerkUserID))
		require.Empty(t, b.Clerk.OpenInvitations(email))
	}
	t.Run("invite and accept", func(t *testing.T) {
		t.Parallel()
		raceIn(t, in, []string{"joined"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
			var err error
			var a acceptance
			return round{
				sides: [2]func(){
					func() { _, err = b.TryInvite(t, email) },
					acceptLink(t, b, &a, firstLink(b, email)),
				},
				outcome: func() string {
					require.NoError(t, err)
					require.NoError(t, a.dead)
					require.NoError(t, a.err)
					joined(t, b, email)
					require.Equal(t, 1, b.Clerk.EmailsTo(email))
					return "joined"
				},
			}
		})
	})
	t.Run("resend and accept", func(t *testing.T) {
		t.Parallel()
		raceIn(t, in, []string{"joined", "the link is dead"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
			invited := inviteBefore(t, b, email)
			var err error
			var a acceptance
			return round{
				sides: [2]func(){
					func() { _, err = b.Resend(t.Context(), testkit.Acme(email)) },
					acceptLink(t, b, &a, func() (clerkinvitetest.Webhook, error) { return b.Clerk.AcceptInvitation(invited.InvitationID) }),
				},
				outcome: func() string {
					require.NoError(t, a.err)
					require.LessOrEqual(t, sendsOf(t, b, email)[invited.ID], 2)
					if a.dead != nil {
						require.NoError(t, err)
						b.RequireInvited(t, email, 2)
						return "the link is dead"
					}
					joined(t, b, email)
					return "joined"
				},
			}
		})
	})
	t.Run("remove and webhooks", func(t *testing.T) {
		t.Parallel()
		raceIn(t, in, []string{"reserved > pending > removed", "reserved > pending > active > removed"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
			b.MustInvite(t, email)
			w, err := b.Clerk.Accept(email)
			require.NoError(t, err)
			hooks := append(b.Clerk.OrganizationEvents(), w)
			var removeErr, hookErr error
			return round{
				sides: [2]func(){
					func() { _, removeErr = b.Remove(t.Context(), testkit.Acme(email)) },
					func() {
						for _, hook := range hooks {
							if _, err := handleWebhook(t.Context(), b, hook); !errors.Is(err, clerkinvite.ErrUnconfirmed) {
								hookErr = errors.Join(hookErr, err)
							}
						}
					},
				},
				outcome: func() string {
					require.NoError(t, removeErr)
					require.NoError(t, hookErr)
					receiveAll(t, b)
					require.Equal(t, clerkinvite.StatusRemoved, b.Member(t, email).Status)
					require.Empty(t, b.Clerk.Members(raceOrganization))
					return statesOf(t, b, email)
				},
			}
		})
	})
	t.Run("add and revoke", func(t *testing.T) {
		t.Parallel()
		raceIn(t, in, []string{"added", "left", "revoked"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
			u := b.Clerk.AddVerifiedUser(email)
			into := &clerkinvite.Organization{ID: raceOrganization, AddExisting: true}
			p := clerkinvite.InviteParams{TenantID: "acme", Email: email, Organization: into}
			_, err := b.Reserve(t.Context(), p)
			require.NoError(t, err)
			var revokeErr error
			return round{
				sides: [2]func(){
					func() { _, _ = b.Invite(t.Context(), p) }, // its error says what the row says
					func() { _, revokeErr = b.Revoke(t.Context(), testkit.Acme(email)) },
				},
				outcome: func() string {
					require.Zero(t, b.Clerk.EmailsTo(email))
					b.Clock.Advance(10 * time.Minute) // a new member is not removed
					receiveAll(t, b)
					m := b.Member(t, email)
					if revokeErr != nil {
						testkit.RequireTransition(t, revokeErr, clerkinvite.StatusActive, clerkinvite.StatusRevoked)
					}
					switch m.Status {
					case clerkinvite.StatusActive: // Revoke was refused, or the member was invited again
						joined(t, b, email)
						return "added"
					case clerkinvite.StatusRemoved: // Revoke ended the membership, and was refused because the attempt was faster
						require.Equal(t, clerkinvite.ReasonLeftOrganization, m.Reason)
						require.False(t, isMember(b, u.ID))
						return "left"
					}
					require.Equal(t, clerkinvite.StatusRevoked, m.Status)
					require.False(t, isMember(b, u.ID))
					return "revoked"
				},
			}
		})
	})
	t.Run("two tenants", func(t *testing.T) {
		t.Parallel()
		raceIn(t, in, []string{"one invitation"}, func(t *testing.T, b *testkit.Rig, email string, _ *rand.Rand) round {
			var errs [2]error
			side := func(i int, tenant string) func() {
				return func() { _, errs[i] = b.Invite(t.Context(), testkit.Params(tenant, email)) }
			}
			return round{
				sides: [2]func(){side(0, "acme"), side(1, "globex")},
				outcome: func() string {
					require.NoError(t, errors.Join(errs[:]...))
					m := b.RequireInvited(t, email, 1)
					other, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "globex", Email: email})
					require.NoError(t, err)
					require.Equal(t, m.ClerkUserID, other.ClerkUserID)
					return "one invitation"
				},
			}
		})
	})
}
