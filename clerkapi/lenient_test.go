package clerkapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// oneRule has user objects with odd fields, and what must be read from them. Responses and webhooks
// are read by the same rule.
var oneRule = map[string]struct {
	user string
	want clerkinvite.User // without its ID
}{
	"created_at a text":       {`{"id":"user_1","created_at":"yesterday"}`, clerkinvite.User{Incomplete: true}},
	"created_at an object":    {`{"id":"user_1","created_at":{"at":1}}`, clerkinvite.User{Incomplete: true}},
	"created_at too large":    {`{"id":"user_1","created_at":1e999}`, clerkinvite.User{Incomplete: true}},
	"created_at negative":     {`{"id":"user_1","created_at":-5}`, clerkinvite.User{Incomplete: true}},
	"banned a text":           {`{"id":"user_1","banned":"true"}`, clerkinvite.User{Incomplete: true}},
	"banned a number":         {`{"id":"user_1","banned":1}`, clerkinvite.User{Incomplete: true}},
	"locked":                  {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":90}`, clerkinvite.User{Incomplete: true, Locked: true, LockEndsIn: 90 * time.Second}},
	"locked without an end":   {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":null}`, clerkinvite.User{Incomplete: true, Locked: true}},
	"end of a lock a text":    {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":"90"}`, clerkinvite.User{Incomplete: true, Locked: true}},
	"end of a lock a float":   {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":1.5}`, clerkinvite.User{Incomplete: true, Locked: true}},
	"end of a lock negative":  {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":-5}`, clerkinvite.User{Incomplete: true, Locked: true}},
	"end of a lock too large": {`{"id":"user_1","locked":true,"lockout_expires_in_seconds":9223372037}`, clerkinvite.User{Incomplete: true, Locked: true}},
	"locked a text":           {`{"id":"user_1","locked":"yes"}`, clerkinvite.User{Incomplete: true}},
	"deprovisioned":           {`{"id":"user_1","deprovisioned":true}`, clerkinvite.User{Incomplete: true, Deprovisioned: true}},
	"deprovisioned a number":  {`{"id":"user_1","deprovisioned":1}`, clerkinvite.User{Incomplete: true}},
	"primary a number":        {`{"id":"user_1","primary_email_address_id":7}`, clerkinvite.User{Incomplete: true}},
	"addresses a text":        {`{"id":"user_1","email_addresses":"a@b.co"}`, clerkinvite.User{Incomplete: true}},
	"addresses an object":     {`{"id":"user_1","email_addresses":{"0":{"email_address":"a@b.co"}}}`, clerkinvite.User{Incomplete: true}},
	"odd addresses":           {user1(`null,7,"a@b.co",[],{"email_address":7},{"email_address":""},{"id":7,"email_address":"a@b.co","verification":{"status":"verified"}}`), incomplete(true)},
	"verification a text":     {user1(`{"email_address":"a@b.co","verification":"verified"}`), incomplete(false)},
	"status a list":           {user1(`{"email_address":"a@b.co","verification":{"status":["verified"]}}`), incomplete(false)},
	"status in another case":  {user1(`{"email_address":"a@b.co","verification":{"Status":"verified"}}`), incomplete(false)},
	"key in another case":     {user1(`{"email_address":"a@b.co","Email_Address":"x@b.co","Verification":{"status":"verified"}}`), incomplete(false)},
	"key twice":               {user1(`{"email_address":"x@b.co","email_address":"a@b.co","verification":{"status":"unverified"},"verification":{"status":"verified"}}`), holder(true)},
	"key twice, not merged":   {user1(`{"email_address":"a@b.co","verification":{"status":"verified"},"verification":{}}`), incomplete(false)},
	"the last is odd":         {user1(`{"email_address":"a@b.co","verification":{"status":"verified"},"verification":7}`), incomplete(false)},
	"verification null":       {user1(`{"email_address":"a@b.co","verification":null}`), holder(false)},
	"verification missing":    {user1(`{"email_address":"a@b.co"}`), incomplete(false)},
	"status unknown":          {user1(`{"email_address":"a@b.co","verification":{"status":"confirmed"}}`), incomplete(false)},
	"status expired":          {user1(`{"email_address":"a@b.co","verification":{"status":"expired"}}`), holder(false)},
	"escaped key":             {user1(`{"email_address":"a@b.co","verification":{"status":"verified"},"\u0076erification":null}`), holder(false)},
	"addresses twice":         {`{"id":"user_1","email_addresses":[{"email_address":"x@b.co"},{"email_address":"y@b.co"}],"email_addresses":[{"email_address":"a@b.co"}]}`, incomplete(false)},
	"user id in another case": {`{"ID":"user_2","id":"user_1"}`, clerkinvite.User{Incomplete: true}},
	"user id twice":           {`{"id":"user_2","id":"user_1"}`, clerkinvite.User{Incomplete: true}},
}

func user1(addresses string) string {
	return `{"id":"user_1","email_addresses":[` + addresses + `]}`
}

func holder(verified bool) clerkinvite.User {
	return clerkinvite.User{Emails: []clerkinvite.UserEmail{{Address: "a@b.co", Verified: verified}}}
}

// incomplete is holder for a user with an address that cannot be read, or whose verification cannot.
func incomplete(verified bool) clerkinvite.User {
	u := holder(verified)
	u.Incomplete = true
	return u
}

func TestOneRuleForResponsesAndWebhooks(t *testing.T) {
	t.Parallel()
	for name, tc := range oneRule {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := tc.want
			want.ID = "user_1"
			found, err := newClient(t, answer(t, 200, "["+tc.user+"]").URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
			require.NoError(t, err)
			require.Equal(t, []clerkinvite.User{want}, found)
			ev, err := clerkinvite.ParseEvent([]byte(`{"type":"user.created","timestamp":"now","data":` + tc.user + `}`))
			require.NoError(t, err)
			require.Equal(t, want, *ev.User)
		})
	}
	// Without an ID there is nothing to use.
	for _, user := range []string{`{}`, `7`, `null`, `{"id":7}`, `{"ID":"user_1"}`, `{"id":"user_1","id":7}`, `{"id":"../x"}`, `{"id":"-user_1"}`, `{"id":"secret.person"}`} {
		found, err := newClient(t, answer(t, 200, `[`+user+`,{"id":"user_2"}]`).URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.NoError(t, err, user)
		require.Equal(t, []clerkinvite.User{{ID: "user_2", Incomplete: true}}, found, user)
		_, err = clerkinvite.ParseEvent([]byte(`{"type":"user.created","data":` + user + `}`))
		require.ErrorIs(t, err, clerkinvite.ErrBadEvent, user)
		require.NotContains(t, err.Error(), secret)
		_, err = newClient(t, answer(t, 200, `[`+user+`]`).URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
		require.Error(t, err, "an unreadable response is not an empty one")
		require.NotContains(t, err.Error(), secret)
	}
}

func TestOddInvitationsCostOnlyThemselves(t *testing.T) {
	t.Parallel()
	read := clerkinvite.Invitation{ID: "inv_1", Email: email, Status: clerkinvite.InvitationPending}
	for name, tc := range map[string]struct {
		body string
		want clerkinvite.Invitation
	}{
		"created_at a text":    {`"created_at":"yesterday"`, read},
		"expires_at an object": {`"expires_at":{}`, read},
		"url a number":         {`"url":7`, read},
		"revoked a text":       {`"revoked":"no"`, read},
		"key in another case":  {`"Status":"revoked","Revoked":true,"ID":"inv_2"`, read},
		"key twice":            {`"url":"https://b.co","url":null`, read},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := `{"id":"inv_1","email_address":"` + email + `","status":"pending",` + tc.body + `}`
			got, err := create(t, newClient(t, answer(t, 200, one).URL, clerkapi.Options{}))
			require.NoError(t, err)
			require.Equal(t, tc.want, *got)
			c := newClient(t, answer(t, 200, `{"data":[{"id":7,"email_address":"`+email+`"},`+one+`]}`).URL, clerkapi.Options{})
			list, err := c.ListInvitations(t.Context(), clerkinvite.InvitationQuery{})
			require.NoError(t, err)
			require.Equal(t, []clerkinvite.Invitation{{Email: email}, tc.want}, list, "an odd one keeps its place in the page")
			list, err = c.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{{Email: "a@b.co"}, {Email: email}})
			require.NoError(t, err)
			require.Equal(t, []clerkinvite.Invitation{tc.want}, list)
		})
	}
	for name, body := range map[string]string{"status a number": `"status":7`, "status twice": `"status":"pending","status":[]`} {
		got, err := create(t, newClient(t, answer(t, 200, `{"id":"inv_1",`+body+`}`).URL, clerkapi.Options{}))
		require.NoError(t, err, name)
		require.Empty(t, got.Status, name)
	}
}

func TestOddErrorsCostOnlyThemselves(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"errors":[7,null,{"code":"not_allowed_access","message":7,"meta":[]}],"meta":"x","clerk_trace_id":7}`,
		`{"errors":[],"errors":[{"Code":"x","code":"y","code":"not_allowed_access"}],"Errors":7}`,
	} {
		_, err := create(t, newClient(t, answer(t, 403, body).URL, clerkapi.Options{}))
		api := apiError(t, err)
		require.Equal(t, "not_allowed_access", api.Code)
		require.Empty(t, api.Meta)
	}
}

// A page whose users are not all readable is still full.
func TestOddUserDoesNotEndTheList(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.URL.Query().Get("offset") != "" {
			reply(w, 200, `[{"id":"user_last"}]`)
			return
		}
		var users []string
		for i := range 500 {
			users = append(users, fmt.Sprintf(`{"id":"user_%d"}`, i))
		}
		users[7] = `{"id":7}`
		reply(w, 200, "["+strings.Join(users, ",")+"]")
	})
	found, err := newClient(t, f.URL, clerkapi.Options{}).FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}})
	require.NoError(t, err)
	require.Len(t, found, 500)
	require.Equal(t, "user_last", found[len(found)-1].ID)
}

// One odd user does not delay the other users in the same look-up.
func TestOddUserDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(user map[string]any){
		"created_at": func(user map[string]any) { user["created_at"] = "yesterday" },
		"banned":     func(user map[string]any) { user["banned"] = "no" },
		"addresses":  func(user map[string]any) { user["email_addresses"] = append(user["email_addresses"].([]any), 7) },
		"id":         func(user map[string]any) { user["id"] = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := clerkinvitetest.NewClerk()
			fake.AddVerifiedUser("odd@example.com")
			fake.AddVerifiedUser("known@example.com")
			f := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/users") {
					fake.Handler().ServeHTTP(w, r)
					return
				}
				rec := &recorder{header: http.Header{}}
				fake.Handler().ServeHTTP(rec, r)
				var users []map[string]any
				assert.NoError(t, json.Unmarshal(rec.body, &users))
				for _, user := range users {
					if strings.Contains(fmt.Sprint(user), "odd@example.com") {
						change(user)
					}
				}
				body, err := json.Marshal(users)
				assert.NoError(t, err)
				reply(w, 200, string(body))
			}))
			t.Cleanup(f.Close)
			fake.SetSecretKey(key)
			svc, err := clerkinvite.New(clerkinvite.Config{API: newClient(t, f.URL, clerkapi.Options{}), Store: clerkinvitetest.NewMemoryStore(), Lease: time.Minute})
			require.NoError(t, err)
			ps := []clerkinvite.InviteParams{{TenantID: "a", Email: "odd@example.com"}, {TenantID: "a", Email: "known@example.com"}}
			for i := range 60 {
				ps = append(ps, clerkinvite.InviteParams{TenantID: "a", Email: fmt.Sprintf("new%d@example.com", i)})
			}
			results, err := svc.InviteMany(t.Context(), ps, nil)
			require.NoError(t, err)
			for i, r := range results {
				if name == "id" && i == 0 {
					require.Error(t, r.Err)
					require.Equal(t, clerkinvite.StatusReserved, r.Member.Status)
					continue
				}
				require.NoError(t, r.Err, ps[i].Email)
				want := clerkinvite.StatusPending
				if i < 2 {
					want = clerkinvite.StatusActive
				}
				require.Equal(t, want, r.Member.Status, ps[i].Email)
			}
		})
	}
}

// recorder keeps a response.
type recorder struct {
	header http.Header
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(int)     {}
func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body, b...)
	return len(b), nil
}
