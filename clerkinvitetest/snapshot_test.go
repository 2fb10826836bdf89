package clerkinvitetest_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// lived returns a Clerk with something of everything that it can remember.
func lived(t *testing.T) (*clerkinvitetest.Clerk, *clerkinvitetest.Clock) {
	t.Helper()
	c, k := newClerk()
	create := func(email string, r clerkinvite.InvitationRequest) string {
		k.Advance(time.Second)
		r.Email = email
		inv, err := c.CreateInvitation(t.Context(), r)
		require.NoError(t, err)
		return inv.ID
	}
	// Held by two, the one who was there later first.
	first := c.AddUser(clerkinvitetest.UserSpec{ID: "user_first", Primary: -1})
	c.AddUser(clerkinvitetest.UserSpec{ID: "user_second", Emails: []clerkinvitetest.EmailSpec{{Address: "shared@example.com"}, {Address: "Reserved@example.com", Reserved: true}}})
	c.AddEmail(first.ID, clerkinvitetest.EmailSpec{Address: "Shared@example.com", NullVerification: true})
	c.BanUser(c.AddVerifiedUser("banned@example.com").ID)
	c.DeleteUser(c.AddVerifiedUser("deleted@example.com").ID)

	create(ada, clerkinvite.InvitationRequest{PublicMetadata: []byte(`{"b":"<&>","a":12345678901234567890}`), Template: "waitlist_invitation"})
	create("joan@example.com", clerkinvite.InvitationRequest{ExpiresInDays: 1, SkipEmail: true})
	c.ExpireNow(create("late@example.com", clerkinvite.InvitationRequest{}))
	c.RevokeInDashboard(create("gone@example.com", clerkinvite.InvitationRequest{}))
	create("bulk@example.com", clerkinvite.InvitationRequest{})
	_, err := c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "one@example.com", PublicMetadata: []byte(`{"x":null}`)}, {Email: "two@example.com"}})
	require.NoError(t, err)
	create("two@example.com", clerkinvite.InvitationRequest{IgnoreExisting: true})
	c.CreateForeign("foreign@example.com", map[string]any{"of": "another"})
	for _, email := range []string{ada, "one@example.com"} {
		_, err = c.Accept(email)
		require.NoError(t, err)
	}
	_, err = c.AcceptAs("bulk@example.com", "private@example.com")
	require.NoError(t, err)

	// What is not shown yet, and what is shown as it was.
	c.SetBehavior(clerkinvitetest.Behavior{Lag: true})
	create("hidden@example.com", clerkinvite.InvitationRequest{})
	_, err = c.Accept("joan@example.com")
	require.NoError(t, err)
	c.AddEmail(first.ID, clerkinvitetest.EmailSpec{Address: "hidden@example.com", Verified: true})
	return c, k
}

// everything is what can be seen of a Clerk, changing nothing but the count of requests.
func everything(t *testing.T, c *clerkinvitetest.Clerk) (seen []any) {
	t.Helper()
	seen = append(seen, c.Requests(), c.SentMail(), c.Emails())
	emails := []string{
		ada, "joan@example.com", "late@example.com", "gone@example.com", "bulk@example.com", "one@example.com", "two@example.com",
		"foreign@example.com", "hidden@example.com", "shared@example.com", "reserved@example.com", "banned@example.com",
		"deleted@example.com", "private@example.com",
	}
	for _, email := range emails {
		seen = append(seen, c.Invitations(email), c.EmailsTo(email))
	}
	for _, status := range []string{"", clerkinvite.InvitationPending, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired, clerkinvite.InvitationAccepted} {
		list, err := c.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Status: status})
		require.NoError(t, err)
		seen = append(seen, list)
	}
	users, err := c.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails})
	require.NoError(t, err)
	for _, path := range []string{"users?limit=100", "invitations?limit=100", "users/user_first"} {
		seen = append(seen, send(t, http.MethodGet, serve(t, c)+"/v1/"+path, "").body)
	}
	return append(seen, users)
}

// After a round trip all is as it was, and goes on in the same way: in both what lags and what does not.
func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	for name, behavior := range map[string]clerkinvitetest.Behavior{"lag": {Lag: true}, "none": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, k := lived(t)
			saved, err := c.Snapshot()
			require.NoError(t, err)

			back := clerkinvitetest.NewClerk()
			back.SetNow(k.Now)
			back.AddVerifiedUser("forgotten@example.com")
			back.SetBehavior(clerkinvitetest.Behavior{Lag: true})
			require.NoError(t, back.Restore(saved))
			again, err := back.Snapshot()
			require.NoError(t, err)
			require.JSONEq(t, string(saved), string(again))
			require.Equal(t, everything(t, c), everything(t, back))

			if !behavior.Lag {
				c.SetBehavior(behavior)
				back.SetBehavior(behavior)
			}
			k.Advance(time.Minute)
			goOn := func(c *clerkinvitetest.Clerk) (did []any) {
				for _, email := range []string{"two@example.com", "hidden@example.com", "foreign@example.com"} {
					w, err := c.Accept(email)
					require.NoError(t, err)
					did = append(did, w.ID, w.At, string(w.Payload))
				}
				did = append(did, string(c.SignUp("shared@example.com", true).Payload), c.AddVerifiedUser("new@example.com"))
				for _, email := range []string{"newer@example.com", "shared@example.com", "reserved@example.com", "deleted@example.com"} {
					inv, err := c.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: email})
					did = append(did, inv, err)
				}
				return append(did, everything(t, c)...)
			}
			require.Equal(t, goOn(c), goOn(back))
		})
	}
}

// The memory of a snapshot and that of the Clerk it came from are two.
func TestSnapshotIsACopy(t *testing.T) {
	t.Parallel()
	c, k := lived(t)
	saved, err := c.Snapshot()
	require.NoError(t, err)
	before := everything(t, c)
	back := clerkinvitetest.NewClerk()
	back.SetNow(k.Now)
	require.NoError(t, back.Restore(saved))
	back.DeleteUser("user_first")
	_, err = back.Accept("two@example.com")
	require.NoError(t, err)
	c.ResetCounts()
	require.Equal(t, before[1:], everything(t, c)[1:])
}

// What was set on a Clerk stays: a restored Clerk still refuses what it was told to refuse.
func TestRestoreKeepsWhatWasSet(t *testing.T) {
	t.Parallel()
	saved, err := clerkinvitetest.NewClerk().Snapshot()
	require.NoError(t, err)
	c, k := newClerk()
	c.SetSecretKey("sk_test_1")
	c.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.JSON500})
	require.NoError(t, c.Restore(saved))
	require.Equal(t, http.StatusUnauthorized, recorder(t, c))
	_, err = c.CreateInvitation(t.Context(), request(ada))
	requireRefused(t, err, 500, "internal_clerk_error")
	require.Equal(t, k.Now(), mustCreate(t, c, ada).CreatedAt)
}

// A snapshot that is not one changes nothing.
func TestRestoreRefusesDamage(t *testing.T) {
	t.Parallel()
	c, _ := lived(t)
	saved, err := c.Snapshot()
	require.NoError(t, err)
	before := everything(t, c)[1:]
	for name, change := range map[string][2]string{
		"half":             {`"users":`, "\x00"},
		"another version":  {`"version":1`, `"version":2`},
		"unknown field":    {`"version":1`, `"version":1,"new":1`},
		"more":             {`{"version"`, `{}{"version"`},
		"unknown status":   {`"status":"revoked"`, `"status":"lost"`},
		"no id":            {`"id":"inv_000001"`, `"id":""`},
		"invitation twice": {`"id":"inv_000002"`, `"id":"inv_000001"`},
		"shown wrongly":    {`"settled":{"id":"inv_000001"`, `"settled":{"id":"inv_000002"`},
		"user twice":       {`"id":"user_second"`, `"id":"user_first"`},
		"user without id":  {`"id":"user_second"`, `"id":""`},
		"email without id": {`"id":"idn_000001"`, `"id":""`},
		"metadata":         {`"metadata":{}`, `"metadata":[]`},
		"not folded":       {`"email":"` + ada + `"`, `"email":"ADA@example.com"`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, string(saved), change[0])
			err := c.Restore([]byte(strings.Replace(string(saved), change[0], change[1], 1)))
			require.ErrorContains(t, err, "this snapshot cannot be restored")
			require.NotContains(t, err.Error(), "@")
			require.Equal(t, before, everything(t, c)[1:])
		})
	}
	require.Error(t, c.Restore(nil))
	require.Error(t, c.Restore(append(slices.Clone(saved), "{}"...)))
}

// Whoever adds something that a Clerk remembers adds it to the snapshot, and counts it here.
func TestSnapshotForgetsNothing(t *testing.T) {
	t.Parallel()
	var names []string
	clerk := reflect.TypeFor[clerkinvitetest.Clerk]()
	for i := range clerk.NumField() {
		names = append(names, clerk.Field(i).Name)
	}
	require.Equal(t, []string{
		"mu", "now", "behavior", "secretKey", "patience", "onCall", // set
		"serial", "counts", // in the snapshot
		"faults", "limits", "windows", // set
		"mail", "mailTo", "invitations", "byID", "byEmail", "users", "userByID", "userByEmail", // in the snapshot, or made of it
	}, names)
	fields := func(name string, path ...string) int {
		field, _ := clerk.FieldByName(name)
		typ := field.Type.Elem().Elem() // []*record
		for _, name := range path {
			field, _ = typ.FieldByName(name)
			typ = field.Type
			if typ.Kind() == reflect.Slice {
				typ = typ.Elem()
			}
		}
		return typ.NumField()
	}
	require.Equal(t, 2, fields("invitations"))
	require.Equal(t, 9, fields("invitations", "invitation"))
	require.Equal(t, 2, fields("users"))
	require.Equal(t, 8, fields("users", "user"))
	require.Equal(t, 4, fields("users", "user", "emails"))
	require.Equal(t, 4, reflect.TypeFor[clerkinvitetest.EmailSpec]().NumField())
}
