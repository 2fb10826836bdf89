package attacks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// A canceled context causes no write and no request.
func TestCanceledContextDoesNothing(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.ErrorIs(t, err, context.Canceled)
		_, err = b.Deliver(ctx, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, b.Clerk.RequestCount())
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	})
}

// hostile are texts that would be more than text if they were not parameters.
var hostile = []string{
	`'; DROP TABLE clerkinvite_member; --`, `' OR '1'='1`, `" OR ""="`, `\'; SELECT pg_sleep(60); --`, `$1`, `$$; ROLLBACK; $$`, `x'::text || (SELECT url FROM clerkinvite_member)::text || 'x`,
	`%`, `_`, `%%`, `acm_`, `acme%`, `\`, `\\`, `{"$ne":null}`, `{}`, `[]`, `"`, `null`, `","tenant_id":"globex`, `"}]) AS x; --`, `\u0027`, `{{.}}`, `%s%n%d`, `${jndi:ldap://x.example.com}`,
	"clerkinvite_member", "acme globex", "é", "😀",
}

// Every string from the host stays a string, in every parameter of every statement.
func TestNoStringBecomesSQL(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "SQL injection through every string parameter")
	b := testkit.NewPostgres(t, testkit.Options{})
	ctx := t.Context()
	bystander := b.MustInvite(t, "bystander@example.com")
	for i, s := range hostile {
		email := fmt.Sprintf("m%d@example.com", i)
		data, err := json.Marshal(map[string]string{s: s})
		require.NoError(t, err)
		metadata := map[string]any{s: s}
		m, err := b.Invite(ctx, clerkinvite.InviteParams{
			TenantID: s, Email: email, Role: s, InvitedBy: s, Data: data, PublicMetadata: metadata, RedirectURL: "https://app.example.com/?next=" + s})
		if err != nil { // a URL that cannot be parsed
			m, err = b.Invite(ctx, clerkinvite.InviteParams{TenantID: s, Email: email, Role: s, InvitedBy: s, Data: data, PublicMetadata: metadata})
		}
		require.NoError(t, err, s)
		ref := clerkinvite.Ref{TenantID: s, Email: email}
		got, err := b.Get(ctx, ref)
		require.NoError(t, err)
		require.Equal(t, []string{s, s, s, m.ID}, []string{got.TenantID, got.Role, got.InvitedBy, got.ID})
		require.JSONEq(t, string(data), string(got.Data))
		got, err = b.Update(ctx, ref, clerkinvite.MemberUpdate{Role: &s})
		require.NoError(t, err)
		require.Equal(t, s, got.Role)

		// As a filter it selects only equal values.
		for _, p := range []clerkinvite.ListParams{{TenantID: s}, {TenantID: s, InvitedBy: s}, {TenantID: s, Statuses: []clerkinvite.Status{"pending"}, InvitedBy: s}} {
			page, err := b.List(ctx, p)
			require.NoError(t, err)
			require.Len(t, page.Members, 1, s)
			require.Equal(t, m.ID, page.Members[0].ID)
		}
		page, err := b.List(ctx, clerkinvite.ListParams{TenantID: "acme", EmailPrefix: s})
		require.NoError(t, err)
		require.Empty(t, page.Members, s)
		page, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme", InvitedBy: s})
		require.NoError(t, err)
		require.Empty(t, page.Members, s)
		_, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme", Cursor: s})
		requireInvalid(t, err, "Cursor")
		_, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme", Statuses: []clerkinvite.Status{clerkinvite.Status(s)}})
		requireInvalid(t, err, "Statuses")
		_, err = b.ResolveUser(ctx, s)
		if regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(s) {
			require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		} else {
			requireInvalid(t, err, "userID")
		}

		// The store alone, which gets unchecked values here.
		found, err := b.Store.Find(ctx, clerkinvite.Query{
			Refs: []clerkinvite.Ref{{TenantID: "acme", Email: s}, {TenantID: s, Email: s}}, IDs: []string{s}, Emails: []string{s}, UserIDs: []string{s}})
		require.NoError(t, err)
		require.Empty(t, found, s)
		found, err = b.Store.Page(ctx, clerkinvite.PageQuery{TenantID: "acme", EmailPrefix: s, Statuses: []clerkinvite.Status{clerkinvite.Status(s)}})
		require.NoError(t, err)
		require.Empty(t, found, s)
		moves, err := b.Store.History(ctx, s, m.ID)
		require.NoError(t, err)
		require.NotEmpty(t, moves)
		moves, err = b.Store.History(ctx, "acme", s)
		require.NoError(t, err)
		require.Empty(t, moves)
		at, err := b.Store.SwapTime(ctx, s, time.Time{}, b.Clock.Now())
		require.NoError(t, err)
		require.Equal(t, b.Clock.Now(), at)

		// Clerk's texts stay strings, too.
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 422, Code: "not_allowed_access", Message: s, Meta: map[string]any{s: s}})
		_, err = b.Invite(ctx, clerkinvite.InviteParams{TenantID: s, Email: "refused@example.com"})
		require.Error(t, err)
		require.NoError(t, b.Purge(ctx, ref))
	}
	require.Equal(t, bystander.ID, b.Member(t, "bystander@example.com").ID)
	require.Equal(t, bystander.Version, b.Member(t, "bystander@example.com").Version)

	// The schema's name is the only string that is part of statements.
	pool := pgtest.New(t).Pool(t)
	for _, schema := range []string{`x"; DROP SCHEMA public CASCADE; --`, `Select`, `a.b`, `"`, `'`, `$1`} {
		store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema})
		require.NoError(t, store.Migrate(ctx), schema)
		require.NoError(t, store.Validate(ctx), schema)
		var n int
		require.NoError(t, pool.QueryRow(ctx, "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename = 'clerkinvite_member'", schema).Scan(&n))
		require.Equal(t, 1, n, schema)
		svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: store})
		require.NoError(t, err)
		_, err = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
		require.NoError(t, err, schema)
	}
	row.Done(fmt.Sprintf("%d texts, each in every string parameter", len(hostile)), "0 rows, 0 rows of other tenants read")
}

func requireInvalid(t *testing.T, err error, field string) {
	t.Helper()
	var invalid *clerkinvite.InvalidParamsError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, field, invalid.Field)
}

// Tenants whose names look, sort or match alike are kept apart: by address, page and cursor, and in every verb.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	tenants := []string{"acme", "ACME", "Acme", "acm\u00e9", "acme\u0301", "acm_", "acme%", "acme/../globex", "a", "acme.", "аcme", "ac me"}
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		for _, tenant := range []string{"acme ", " acme", "acme\u00a0", "ac\u00a0me", "acme\u200b", "\u202eemca", "acme\u2028globex", "acme\ufe0f"} { // they look the same
			_, err := b.Reserve(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: "m0@example.com"})
			requireInvalid(t, err, "TenantID")
			_, err = b.List(ctx, clerkinvite.ListParams{TenantID: tenant})
			requireInvalid(t, err, "TenantID")
			requireInvalid(t, b.Purge(ctx, clerkinvite.Ref{TenantID: tenant, Email: "m0@example.com"}), "TenantID")
		}
		ids := map[string][]string{}
		cursors := []string{""}
		for _, tenant := range tenants {
			for i := range 3 {
				m, err := b.Reserve(ctx, clerkinvite.InviteParams{TenantID: tenant, Email: fmt.Sprintf("m%d@example.com", i), InvitedBy: "boss"})
				require.NoError(t, err, "%q", tenant)
				ids[tenant] = append(ids[tenant], m.ID)
			}
			page, err := b.List(ctx, clerkinvite.ListParams{TenantID: tenant, Limit: 1})
			require.NoError(t, err)
			cursors = append(cursors, page.Next)
		}
		for _, tenant := range tenants {
			for i, cursor := range cursors {
				for _, p := range []clerkinvite.ListParams{
					{}, {InvitedBy: "boss"}, {EmailPrefix: "m"}, {Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}}, {Statuses: []clerkinvite.Status{clerkinvite.StatusReserved}, EmailPrefix: "m", InvitedBy: "boss"},
				} {
					p.TenantID, p.Cursor, p.Limit = tenant, cursor, 2
					for m, err := range b.All(ctx, p) {
						require.NoError(t, err)
						require.Equal(t, tenant, m.TenantID, "by cursor %d", i)
						require.Contains(t, ids[tenant], m.ID)
					}
				}
			}
			m, err := b.Get(ctx, clerkinvite.Ref{TenantID: tenant, Email: "m1@example.com"})
			require.NoError(t, err)
			require.Equal(t, ids[tenant][1], m.ID)
			// Its history is not found under another tenant.
			moves, err := b.Store.History(ctx, tenants[0], m.ID)
			require.NoError(t, err)
			require.Equal(t, tenant == tenants[0], len(moves) > 0)
		}
		// Purging one member does not affect the others.
		for i, tenant := range tenants {
			require.NoError(t, b.Purge(ctx, clerkinvite.Ref{TenantID: tenant, Email: "m1@example.com"}))
			for k, other := range tenants {
				_, err := b.Get(ctx, clerkinvite.Ref{TenantID: other, Email: "m1@example.com"})
				if k <= i {
					require.ErrorIs(t, err, clerkinvite.ErrNotFound)
				} else {
					require.NoError(t, err, "%q was erased with %q", other, tenant)
				}
			}
		}
		// Tenant and address swapped.
		_, err := b.Get(ctx, clerkinvite.Ref{TenantID: "m0@example.com", Email: "acme"})
		requireInvalid(t, err, "Email")
	})
}

// Metadata proves nothing: neither another row's marker on an accepted invitation, nor unsafe_metadata, nor a forwarded
// link.
func TestPromise5_MetadataProvesNothing(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		ada := b.MustInvite(t, "ada@example.com")
		mark := map[string]any{"clerkinvite": map[string]any{"id": ada.ID, "send": 1}}

		// Another application of the instance invites Eve with Ada's marker.
		b.Clerk.CreateForeign("eve@example.com", mark)
		w, err := b.Clerk.Accept("eve@example.com")
		require.NoError(t, err)
		require.Empty(t, b.Receive(t, w))

		// Eve, a user, writes everything that she can, and Clerk signs it.
		var event map[string]any
		require.NoError(t, json.Unmarshal(w.Payload, &event))
		data, ok := event["data"].(map[string]any)
		require.True(t, ok)
		address := map[string]any{"id": "idn_x", "email_address": "ada@example.com", "verification": map[string]any{"status": "verified"}}
		for _, where := range []string{"unsafe_metadata", "public_metadata", "Email_addresses", "EMAIL_ADDRESSES"} {
			forged := maps.Clone(data)
			forged[where] = map[string]any{"clerkinvite": mark["clerkinvite"], "email_addresses": []any{address}, "verification": address["verification"]}
			if strings.EqualFold(where, "email_addresses") {
				forged[where] = []any{address}
			}
			event["data"] = forged
			payload, err := json.Marshal(event)
			require.NoError(t, err)
			require.Empty(t, b.Receive(t, clerkinvitetest.Webhook{ID: "msg_" + where, Payload: payload, At: b.Clock.Now()}), where)
		}

		// Even a signed event that says so is only a hint: the user is read from Clerk.
		data["email_addresses"] = []any{address}
		event["data"] = data
		delete(event, "timestamp") // a recent event that Clerk contradicts would be delivered again
		payload, err := json.Marshal(event)
		require.NoError(t, err)
		require.Empty(t, b.Receive(t, clerkinvitetest.Webhook{ID: "msg_lie", Payload: payload, At: b.Clock.Now()}))

		_, err = b.Reconcile(ctx, nil)
		require.NoError(t, err)
		now := b.RequireInvited(t, "ada@example.com", 1)
		require.Equal(t, ada.InvitationID, now.InvitationID)

		// Bob passes his link on, and another person accepts it under their own address.
		b.MustInvite(t, "bob@example.com")
		w, err = b.Clerk.AcceptAs("bob@example.com", "mallory@example.com")
		require.NoError(t, err)
		require.Empty(t, b.Receive(t, w))
		_, err = b.Reconcile(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, b.Member(t, "bob@example.com").Status)
	})
}

// Replayed webhooks change nothing, in any order and after any change of the member and the user. After five minutes they
// are rejected.
func TestPromise5_ReplayedWebhooksChangeNothing(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		ctx := t.Context()
		ref := clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}
		var said []clerkinvitetest.Webhook
		replay := func(status clerkinvite.Status) {
			t.Helper()
			before := b.Member(t, ref.Email)
			require.Equal(t, status, before.Status)
			b.Clock.Advance(2 * time.Minute) // no event is recent
			for _, w := range append(slices.Clone(said), said...) {
				w.At = b.Clock.Now() // as Svix signs each retry
				require.Empty(t, b.Receive(t, w))
			}
			require.Equal(t, before, b.Member(t, ref.Email))
		}
		hear := func(w clerkinvitetest.Webhook) {
			t.Helper()
			b.Receive(t, w)
			said = append(said, w)
		}
		b.MustInvite(t, ref.Email)
		w, err := b.Clerk.Accept(ref.Email)
		require.NoError(t, err)
		hear(w)
		replay(clerkinvite.StatusActive)
		first := b.Member(t, ref.Email).ClerkUserID
		hear(b.Clerk.UserUpdated(first))

		_, err = b.Remove(ctx, ref)
		require.NoError(t, err)
		replay(clerkinvite.StatusRemoved)

		b.MustInvite(t, ref.Email) // she is a user, so she becomes active immediately
		replay(clerkinvite.StatusActive)
		hear(b.Clerk.DeleteUser(first))
		replay(clerkinvite.StatusRemoved)

		// A new account under the same address is a new user at Clerk.
		b.MustInvite(t, ref.Email)
		replay(clerkinvite.StatusPending)
		w, err = b.Clerk.Accept(ref.Email)
		require.NoError(t, err)
		hear(w)
		require.NotEqual(t, first, b.Member(t, ref.Email).ClerkUserID)
		replay(clerkinvite.StatusActive)

		_, err = b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "bob@example.com"})
		require.NoError(t, err)
		_, err = b.Revoke(ctx, clerkinvite.Ref{TenantID: "acme", Email: "bob@example.com"})
		require.NoError(t, err)
		hear(b.Clerk.SignUp("bob@example.com", true))
		require.Equal(t, clerkinvite.StatusRevoked, b.Member(t, "bob@example.com").Status)

		// Replayed unchanged, it is too old.
		b.Clock.Advance(5*time.Minute + time.Second)
		for _, w := range said {
			_, err := b.Verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
			require.ErrorIs(t, err, clerkinvite.ErrBadSignature)
		}
	})
}

// The sender of a forged webhook learns nothing from the response, and causes no request and no statement.
func TestPromise9_AllForgeriesGetTheSameResponse(t *testing.T) {
	t.Parallel()
	b := memoryBundle(t, testkit.Options{}, noStore{})
	handler := b.WebhookHandler(b.Verifier)
	good := b.Clerk.UserCreated(b.Clerk.AddVerifiedUser("ada@example.com").ID)
	other, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{
		Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, InstanceID: "ins_other", Now: b.Clock.Now})
	require.NoError(t, err)
	strange := good
	strange.Payload = []byte(strings.Replace(string(good.Payload), "ada@", "eve@", 1))
	late := good
	late.At = late.At.Add(-time.Hour)
	request := func(w clerkinvitetest.Webhook, change func(http.Header)) *http.Request {
		r := w.Request(clerkinvitetest.WebhookSecret, "/hook")
		if change != nil {
			change(r.Header)
		}
		return r
	}
	requests := map[string]*http.Request{
		"another body": request(strange, func(h http.Header) {
			h.Set("Svix-Signature", good.Sign(clerkinvitetest.WebhookSecret).Get("Svix-Signature"))
		}),
		"another secret":     good.Request("whsec_"+strings.Repeat("A", 32), "/hook"),
		"late":               request(late, nil),
		"unsigned":           request(good, func(h http.Header) { h.Del("Svix-Signature") }),
		"signed twice":       request(good, func(h http.Header) { h.Add("Svix-Signature", h.Get("Svix-Signature")) }),
		"asymmetric":         request(good, func(h http.Header) { h.Set("Svix-Signature", "v1a,"+strings.Repeat("A", 86)+"==") }),
		"no time":            request(good, func(h http.Header) { h.Set("Svix-Timestamp", "now") }),
		"another id":         request(good, func(h http.Header) { h.Set("Svix-Id", "msg_other") }),
		"the other spelling": request(good, func(h http.Header) { h.Set("Webhook-Signature", h.Get("Svix-Signature")); h.Del("Svix-Signature") }),
	}
	answers := map[string]bool{}
	for name, r := range requests {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		require.Equal(t, 400, w.Code, name)
		answers[fmt.Sprint(w.Code, w.Header(), w.Body)] = true
	}
	w := httptest.NewRecorder()
	b.WebhookHandler(other).ServeHTTP(w, request(good, nil))
	answers[fmt.Sprint(w.Code, w.Header(), w.Body)] = true
	require.Len(t, answers, 1, "all the same")
	require.Zero(t, b.Clerk.RequestCount())
}

// noStore is a store that must not be called.
type noStore struct{ clerkinvite.Store }

// memoryBundle is a service on the fake itself.
func memoryBundle(t *testing.T, o testkit.Options, store clerkinvite.Store) *testkit.Rig {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	return testkit.New(t, o, clerk, clerk, store)
}

// The library passes redirect URLs on and never fetches them.
func TestRedirectURLsAreNotFetched(t *testing.T) {
	t.Parallel()
	var knocks atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { knocks.Add(1) }))
	t.Cleanup(inside.Close)
	b := memoryBundle(t, testkit.Options{Configure: func(c *clerkinvite.Config) { c.RedirectURL = inside.URL }}, clerkinvitetest.NewMemoryStore())
	for i, url := range []string{"", inside.URL + "/admin", strings.Replace(inside.URL, "http://", "http://user:password@", 1)} {
		m, err := b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("m%d@example.com", i), RedirectURL: url, SkipEmail: true})
		require.NoError(t, err)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
		_, err = b.Reconcile(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, b.Purge(t.Context(), m.Ref()))
	}
	require.Zero(t, knocks.Load())
}

// The reason of a refusal is for the log. The caller sees the same text for a banned user, a user who may not sign up
// and an address that Clerk rejects.
func TestRefusalsAllReadTheSame(t *testing.T) {
	t.Parallel()
	b := memoryBundle(t, testkit.Options{}, clerkinvitetest.NewMemoryStore())
	answers := map[string]bool{}
	b.Clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "m0@example.com", Verified: true}}})
	for i, code := range []string{"banned", "not_allowed_access", "form_param_format_invalid", "blocked_country_code"} {
		email := fmt.Sprintf("m%d@example.com", i)
		if i > 0 {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Email: email, Status: 422, Code: code, Message: "because " + email, Meta: map[string]any{"param_name": "email_address"}})
		}
		_, err := b.TryInvite(t, email)
		require.Error(t, err)
		status, message := clerkinvite.HTTPError(err)
		answers[fmt.Sprint(status, message)] = true
	}
	require.Equal(t, map[string]bool{"422invitation refused for this address": true}, answers)
}

// A panic in Authorize leaves no row, no request and no lock.
func TestAPanicInAuthorizeLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{Configure: func(c *clerkinvite.Config) {
		c.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			if p.Role == "panic" {
				panic("a bug of the host")
			}
			return nil
		}
	}}, func(t *testing.T, b *testkit.Rig) {
		p := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", Role: "panic"}
		for _, call := range []func(){
			func() { _, _ = b.Invite(t.Context(), p) },
			func() { _, _ = b.Reserve(t.Context(), p) },
			func() { _, _ = b.InviteMany(t.Context(), []clerkinvite.InviteParams{p}, nil) },
		} {
			require.Panics(t, call)
			require.Zero(t, b.Clerk.RequestCount())
		}
		_, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		b.MustInvite(t, "ada@example.com")
	})
}

// A body causes allocations in proportion to the largest allowed webhook, not to its own size. The test runs alone,
// because it counts allocations.
func TestHostileBodiesAreBounded(t *testing.T) {
	const limit = 256 << 10
	row := tally.Start(t, "hostile webhook bodies: memory")
	b := memoryBundle(t, testkit.Options{}, clerkinvitetest.NewMemoryStore())
	handler := b.WebhookHandler(b.Verifier)
	repeat := func(head, part, tail string) []byte {
		return []byte(head + strings.Repeat(part, (limit-len(head)-len(tail))/len(part)) + tail)
	}
	const user = `{"type":"user.created","data":{"id":"user_1","email_addresses":[`
	signed := map[string][]byte{
		"deep arrays":     repeat("", "[", ""),
		"deep objects":    repeat("", `{"data":`, ""),
		"deep and closed": []byte(`{"type":"user.created","data":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}"),
		"many keys":       repeat(`{"type":"x"`, `,"":0`, "}"),
		"many addresses":  repeat(user+"{}", ",{}", `]}}`),
		"nothing at all":  repeat(user+"null", ",null", `]}}`),
		"verified":        repeat(user+"{}", `,{"email_address":"a@b.co","verification":{"status":"verified"}}`, `]}}`),
		"one long text":   repeat(`{"type":"`, "a", `"}`),
		"escapes":         repeat(`{"type":"`, `\u0041`, `"}`),
		"a long number":   repeat(`{"type":"user.created","timestamp":1`, "0", `}`),
		"white space":     repeat("", " ", ""),
		"not UTF-8":       repeat(`{"type":"`, "\xff", `"}`),
	}
	worst := uint64(0)
	measure := func(name string, r *http.Request, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		handler.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		require.Equal(t, want, w.Code, name)
		worst = max(worst, after.TotalAlloc-before.TotalAlloc)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256*limit), name)
	}
	for name, payload := range signed {
		require.LessOrEqual(t, len(payload), limit)
		w := clerkinvitetest.Webhook{ID: "msg_1", Payload: payload, At: b.Clock.Now()}
		measure(name, w.Request(clerkinvitetest.WebhookSecret, "/hook"), 204)
	}
	for name, length := range map[string]int64{"endless": -1, "endless, with a Content-Length": 1 << 40} {
		body := &endless{}
		r := httptest.NewRequest(http.MethodPost, "/hook", body)
		r.ContentLength = length
		measure(name+", unsigned", r, 400)
		require.Zero(t, body.read)
		r.Header = clerkinvitetest.Webhook{ID: "msg_1", At: b.Clock.Now()}.Request(clerkinvitetest.WebhookSecret, "/hook").Header
		measure(name, r, 413)
		require.LessOrEqual(t, body.read, int64(5<<20), "reading has stopped")
	}
	row.Done(fmt.Sprintf("%d bodies of 256 KiB, 2 endless", len(signed)), "0 responses over the bound", fmt.Sprintf("%d KiB allocated at worst", worst>>10))
}

type endless struct{ read int64 }

func (e *endless) Read(b []byte) (int, error) {
	e.read += int64(len(b))
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// A limit that is longer than Clerk's limits is logged once, and shortened to Clerk's longest limit.
func TestPromise8_LongRetryAfterIsOneLimit(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{time.Hour, time.Hour + time.Second, 24 * time.Hour, 48 * time.Hour, math.MaxInt64} {
		t.Run(wait.String(), func(t *testing.T) {
			t.Parallel()
			store := &countingGates{Store: clerkinvitetest.NewMemoryStore()}
			var creates atomic.Int64
			api := &clerkinvitetest.ClerkFuncs{
				FindUsersFunc:       func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil },
				ListInvitationsFunc: func(context.Context, clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) { return nil, nil },
				CreateInvitationFunc: func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
					creates.Add(1)
					return nil, &clerkinvite.APIError{StatusCode: 429, RetryAfter: wait}
				},
				CreateInvitationsFunc: func(context.Context, []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
					return nil, &clerkinvite.APIError{StatusCode: 429, RetryAfter: wait}
				},
			}
			clock := testkit.NewClock()
			one, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Now: clock.Now})
			require.NoError(t, err)
			_, err = one.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
			told, ok := clerkinvite.RetryAfter(err)
			require.True(t, ok)
			require.Equal(t, time.Hour, told)
			require.LessOrEqual(t, store.asked.Load(), int64(3))

			// Another process, whose clock is four minutes behind, leaves the endpoint alone.
			two, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Now: func() time.Time { return clock.Now().Add(-4 * time.Minute) }})
			require.NoError(t, err)
			for range 4 { // an hour by its clock; the margin comes after that
				clock.Advance(16 * time.Minute)
				_, err = two.Deliver(t.Context(), nil)
				require.NoError(t, err)
				require.EqualValues(t, 1, creates.Load())
			}
			clock.Advance(time.Hour)
			_, err = two.Deliver(t.Context(), nil)
			require.NoError(t, err)
			require.EqualValues(t, 2, creates.Load())
		})
	}
}

type countingGates struct {
	clerkinvite.Store
	asked atomic.Int64
}

func (c *countingGates) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	c.asked.Add(1)
	return c.Store.SwapTime(ctx, name, old, next)
}

// Texts of Clerk or of a proxy never start a new line in the host's log, and are scrubbed where they are stored.
func TestPromise6_ForeignTextsStayOnTheirLine(t *testing.T) {
	t.Parallel()
	const text = "bad\r\nlevel=ERROR msg=forged\u2028\x1b[31m\x00 zoe@example.com zoe%2540example.com zoe\\u0040example.com sk_test_abc " +
		"clerk.example.com/v1/tickets/accept?__clerk_ticket=t0k3n eyJhbGciOiJub25l.eyJ0IjoidDBrM24ifQ.c2ln"
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: text, Message: text})
		_, err := b.TryInvite(t, "zoe@example.com")
		var api *clerkinvite.APIError
		require.ErrorAs(t, err, &api)
		m := b.Member(t, "zoe@example.com")
		require.NotEmpty(t, m.Reason)
		_, message := clerkinvite.HTTPError(err)
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Error("failed", "err", err, "member", m)
		require.Equal(t, 1, strings.Count(log.String(), "\n"))
		printed := []string{api.Error(), m.Reason, message, fmt.Sprint(err), fmt.Sprint(m), fmt.Sprintf("%+v", api)}
		moves, historyErr := b.History(t.Context(), m.Ref())
		require.NoError(t, historyErr)
		for _, move := range moves {
			printed = append(printed, move.Reason)
		}
		for _, s := range printed {
			require.NotRegexp(t, `[\x00-\x1f\x{2028}]|zoe|sk_test|t0k3n|eyJ`, s)
		}
	})
}

// Numbers at and beyond their limits are rejected or have their documented effect.
func TestNumbersAtTheirLimits(t *testing.T) {
	t.Parallel()
	b := memoryBundle(t, testkit.Options{}, clerkinvitetest.NewMemoryStore())
	ctx := t.Context()
	for _, n := range []int{math.MinInt, math.MinInt32, -1, 366, 1001, math.MaxInt32, math.MaxInt} {
		_, err := b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com", ExpiresInDays: n})
		requireInvalid(t, err, "ExpiresInDays")
		if n != 366 {
			_, err = b.List(ctx, clerkinvite.ListParams{TenantID: "acme", Limit: n})
			requireInvalid(t, err, "Limit")
		}
		_, err = clerkinvite.New(clerkinvite.Config{API: b.API, Store: b.Store, ExpiresInDays: n})
		require.Error(t, err)
	}
	for _, lease := range []time.Duration{math.MinInt64, -1, 1, 100*time.Millisecond - 1, time.Hour + 1, math.MaxInt64} {
		_, err := clerkinvite.New(clerkinvite.Config{API: b.Clerk, Store: b.Store, Lease: lease})
		require.Error(t, err)
	}
	require.Zero(t, b.Clerk.RequestCount())
	for _, cooldown := range []time.Duration{math.MinInt64, math.MaxInt64} {
		svc, err := clerkinvite.New(clerkinvite.Config{API: b.Clerk, Store: clerkinvitetest.NewMemoryStore(), ResendCooldown: cooldown, Now: b.Clock.Now})
		require.NoError(t, err)
		email := fmt.Sprintf("m%d@example.com", cooldown&1)
		_, err = svc.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
		require.NoError(t, err)
		_, err = svc.Resend(ctx, clerkinvite.Ref{TenantID: "acme", Email: email})
		var early *clerkinvite.CooldownError
		require.Equal(t, cooldown > 0, errors.As(err, &early), "%v", err)
	}
}
