package clerkinvite

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Which rows become a user's, decided without a store and without Clerk.
func TestResolutions(t *testing.T) {
	t.Parallel()
	valid, over := testNow.Add(time.Hour), testNow.Add(-time.Hour)
	sent := testNow.Add(-48 * time.Hour)
	row := func(tenant, id, email string, status Status, expires time.Time) *Member {
		return &Member{TenantID: tenant, ID: id, Email: email, Status: status, InvitationID: "inv_" + id, InvitedAt: &sent, ExpiresAt: &expires, ReservedAt: sent}
	}
	u := &User{ID: "user_1", PrimaryEmailID: "e1", CreatedAt: sent.Add(-time.Hour), Emails: []UserEmail{
		{ID: "e1", Address: "Ada@example.com", Verified: true}, {ID: "e2", Address: "ada@example.org", Verified: true}, {ID: "e3", Address: "ada@example.net"},
	}}
	late := *u
	late.CreatedAt = sent.Add(time.Hour)
	banned := *u
	banned.Banned = true
	active := row("a", "9", "x@example.com", StatusActive, valid)
	active.ClerkUserID = "user_1"
	for name, c := range map[string]struct {
		user               *User
		rows               []*Member
		accepted           map[string]bool
		changes, postponed map[string]Status // by ID
	}{
		"nobody":                        {user: u},
		"pending":                       {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, map[string]Status{"1": StatusActive}, nil},
		"in two tenants":                {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid), row("b", "2", "ada@example.org", StatusReserved, valid)}, nil, map[string]Status{"1": StatusActive, "2": StatusActive}, nil},
		"unverified":                    {u, []*Member{row("a", "1", "ada@example.net", StatusPending, valid)}, nil, nil, nil},
		"revoked":                       {u, []*Member{row("a", "1", "ada@example.com", StatusRevoked, valid)}, nil, nil, nil},
		"banned":                        {&banned, []*Member{row("a", "1", "ada@example.com", StatusPending, valid)}, nil, nil, nil},
		"primary first, the other ends": {u, []*Member{row("a", "1", "ada@example.org", StatusPending, valid), row("a", "2", "ada@example.com", StatusPending, valid)}, nil, map[string]Status{"2": StatusActive}, map[string]Status{"1": StatusRemoved}},
		"already active":                {u, []*Member{row("a", "1", "ada@example.com", StatusPending, valid), active}, nil, map[string]Status{"1": StatusRemoved}, nil},
		"overdue":                       {u, []*Member{row("a", "1", "ada@example.com", StatusPending, over)}, nil, nil, nil},
		"overdue, account made in time": {&late, []*Member{row("a", "1", "ada@example.com", StatusPending, over)}, nil, map[string]Status{"1": StatusActive}, nil},
		"expired, accepted":             {u, []*Member{row("a", "1", "ada@example.com", StatusExpired, over)}, map[string]bool{"inv_1": true}, map[string]Status{"1": StatusActive}, nil},
		"expired stays beside another":  {u, []*Member{row("a", "1", "ada@example.org", StatusExpired, over), active}, map[string]bool{"inv_1": true}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changes, postponed := resolutions(c.user, c.rows, c.accepted, testNow)
			byID := func(changes []Change) map[string]Status {
				var out map[string]Status
				for _, ch := range changes {
					if out == nil {
						out = make(map[string]Status)
					}
					out[ch.New.ID] = ch.New.Status
					if ch.New.Status == StatusActive {
						require.Equal(t, c.user.ID, ch.New.ClerkUserID)
					} else {
						require.Equal(t, ReasonSecondAddress, ch.New.Reason)
					}
				}
				return out
			}
			require.Equal(t, c.changes, byID(changes))
			require.Equal(t, c.postponed, byID(postponed))
		})
	}
}
