package peers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

const (
	key  = "sk_test_abc"
	ada  = "ada@example.com"
	site = "https://app.example.com/welcome?from=mail&x=%2F"
)

var start = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// both is one fake Clerk with two clients: the library's adapter and Clerk's JavaScript SDK.
type both struct {
	clerk *clerkinvitetest.Clerk
	clock *clerkinvitetest.Clock
	goAPI *clerkapi.Client
	node  *peer
	url   string

	mu    sync.Mutex
	asked []string // method and URI of each request from JavaScript
	trace string   // of the last response
}

func newBoth(t *testing.T, node *peer) *both {
	t.Helper()
	b := &both{clerk: clerkinvitetest.NewClerk(), node: node, clock: clerkinvitetest.NewClock(start)}
	b.clerk.SetNow(b.clock.Now)
	b.clerk.SetSecretKey(key)
	handler := b.clerk.Handler()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.UserAgent() == "@clerk/backend@3.25.0" {
			b.mu.Lock()
			b.asked = append(b.asked, r.Method+" "+r.RequestURI)
			b.mu.Unlock()
		}
		handler.ServeHTTP(&traced{w, b}, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	b.url = s.URL
	var err error
	b.goAPI, err = clerkapi.New(key, &clerkapi.Options{BaseURL: s.URL + "/v1", HTTPClient: s.Client(), Timeout: time.Minute, CreateTimeout: time.Minute})
	require.NoError(t, err)
	return b
}

// traced keeps the trace ID of a response before the client gets it.
type traced struct {
	http.ResponseWriter

	b *both
}

func (w *traced) WriteHeader(status int) {
	w.b.mu.Lock()
	w.b.trace = w.Header().Get("Clerk-Trace-Id")
	w.b.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *traced) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// lastTrace returns the trace ID of the last response.
func (b *both) lastTrace() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trace
}

// requests returns JavaScript's requests since the last call.
func (b *both) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := b.asked
	b.asked = nil
	return asked
}

// sdkError is the SDK's ClerkAPIResponseError.
type sdkError struct {
	Status       int
	ClerkTraceID string
	RetryAfter   any // a number, or "(undefined)"
	Errors       []struct {
		Code, Message, LongMessage string
		Meta                       map[string]any
	}
}

// try calls a method of the SDK and returns its value or its error.
func (b *both) try(t *testing.T, withKey, method string, args ...any) (json.RawMessage, *sdkError) {
	t.Helper()
	if args == nil {
		args = []any{}
	}
	var out struct {
		Value json.RawMessage
		Error *sdkError
	}
	b.node.ask(t, "call", map[string]any{"url": b.url, "key": withKey, "method": strings.Split(method, "."), "args": args}, &out)
	return out.Value, out.Error
}

// call calls a method of the SDK that must succeed.
func call[T any](t *testing.T, b *both, method string, args ...any) (value T) {
	t.Helper()
	raw, failure := b.try(t, key, method, args...)
	require.Nil(t, failure, "%s: %+v", method, failure)
	require.NoError(t, json.Unmarshal(raw, &value), "%s: %s", method, raw)
	return value
}

// refused calls a method of the SDK that must fail.
func refused(t *testing.T, b *both, method string, args ...any) *sdkError {
	t.Helper()
	raw, failure := b.try(t, key, method, args...)
	require.NotNil(t, failure, "%s: %s", method, raw)
	return failure
}

type object = map[string]any

// invitationJS is the SDK's Invitation. It has no expiresAt; Raw has the response.
type invitationJS struct {
	ID             string                       `json:"id"`
	EmailAddress   string                       `json:"emailAddress"`
	PublicMetadata json.RawMessage              `json:"publicMetadata"`
	CreatedAt      int64                        `json:"createdAt"`
	UpdatedAt      int64                        `json:"updatedAt"`
	Status         clerkinvite.InvitationStatus `json:"status"`
	URL            string                       `json:"url"`
	Revoked        bool                         `json:"revoked"`
	Raw            struct {
		Object    string `json:"object"`
		ExpiresAt *int64 `json:"expires_at"`
	} `json:"_raw"`
}

type pageJS[T any] struct {
	Data       []T
	TotalCount int
}

// requireSame compares an invitation in JavaScript with the same in Go.
func requireSame(t *testing.T, want clerkinvite.Invitation, got invitationJS) {
	t.Helper()
	require.Equal(t, want.ID, got.ID)
	require.Equal(t, want.Email, got.EmailAddress)
	require.Equal(t, want.Status, got.Status)
	require.Equal(t, want.URL.Reveal(), got.URL)
	require.JSONEq(t, string(want.PublicMetadata), string(got.PublicMetadata))
	require.Equal(t, want.CreatedAt, time.UnixMilli(got.CreatedAt).UTC())
	require.GreaterOrEqual(t, got.UpdatedAt, got.CreatedAt)
	require.Equal(t, want.Status == clerkinvite.InvitationRevoked, got.Revoked)
	require.Equal(t, "invitation", got.Raw.Object)
	require.NotNil(t, got.Raw.ExpiresAt)
	require.Equal(t, *want.ExpiresAt, time.UnixMilli(*got.Raw.ExpiresAt).UTC())
}

// requireView compares the adapter's view of an address with the fake's state and with JavaScript's
// view.
func requireView(t *testing.T, b *both, email string, got invitationJS) {
	t.Helper()
	held := b.clerk.Invitations(email)
	i := slices.IndexFunc(held, func(inv clerkinvite.Invitation) bool { return inv.ID == got.ID })
	require.GreaterOrEqual(t, i, 0)
	requireSame(t, held[i], got)
	read, err := b.goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Query: got.ID, Status: got.Status})
	require.NoError(t, err)
	require.Equal(t, []clerkinvite.Invitation{held[i]}, read)
}

// The fake stores and the adapter reads what JavaScript creates, with every option.
func TestTheSDKCreatesInvitations(t *testing.T) {
	t.Parallel()
	b := newBoth(t, startPeer(t, "sdk.mjs"))
	metadata := object{"tenantId": "t1", "nested_Key": object{"aB": []any{nil, 1.5, "ü😀\u2028<>&"}}, "clerkinvite": object{"id": "x", "send": 1}}

	plain := call[invitationJS](t, b, "invitations.createInvitation", object{"emailAddress": ada})
	requireView(t, b, ada, plain)
	require.JSONEq(t, `{}`, string(plain.PublicMetadata))
	require.Equal(t, start.AddDate(0, 0, 30), *b.clerk.Invitations(ada)[0].ExpiresAt)

	b.clock.Advance(1234 * time.Millisecond)
	all := call[invitationJS](t, b, "invitations.createInvitation", object{
		"emailAddress": "Ada@Example.com", "redirectUrl": site, "publicMetadata": metadata, "notify": false, "ignoreExisting": true, "expiresInDays": 7,
		"templateSlug": "waitlist_invitation",
	})
	requireView(t, b, ada, all)
	wantMetadata, err := json.Marshal(metadata)
	require.NoError(t, err)
	require.JSONEq(t, string(wantMetadata), string(all.PublicMetadata), "keys stay as they are")
	require.Equal(t, start.Add(1234*time.Millisecond).UnixMilli(), all.CreatedAt)
	require.Equal(t, start.Add(1234*time.Millisecond).AddDate(0, 0, 7), *b.clerk.Invitations(ada)[1].ExpiresAt)
	require.Equal(t, 1, b.clerk.EmailsTo(ada), "the second is without an email")

	mailed := call[invitationJS](t, b, "invitations.createInvitation", object{
		"emailAddress": "grace@example.com", "notify": true, "templateSlug": "waitlist_invitation",
	})
	mails := b.clerk.SentMail()
	require.Equal(t, clerkinvitetest.Mail{
		InvitationID: mailed.ID, To: "grace@example.com", URL: mailed.URL, Template: "waitlist_invitation", At: start.Add(1234 * time.Millisecond),
	}, mails[len(mails)-1])

	bulk := call[[]invitationJS](t, b, "invitations.createInvitationBulk", []any{
		object{"emailAddress": "b1@example.com", "publicMetadata": metadata, "expiresInDays": 365, "redirectUrl": site},
		object{"emailAddress": "b2@example.com", "notify": false},
		object{"emailAddress": ada, "ignoreExisting": true, "publicMetadata": object{"n": 3}},
	})
	require.Len(t, bulk, 3)
	for i, email := range []string{"b1@example.com", "b2@example.com", ada} {
		requireView(t, b, email, bulk[i])
	}
	require.JSONEq(t, string(wantMetadata), string(bulk[0].PublicMetadata))
	require.Equal(t, 0, b.clerk.EmailsTo("b2@example.com"))
	require.Equal(t, 2, b.clerk.EmailsTo(ada))
}

// The other way round: JavaScript lists what the service and the adapter create.
func TestTheSDKListsWhatTheServiceInvites(t *testing.T) {
	t.Parallel()
	b := newBoth(t, startPeer(t, "sdk.mjs"))
	now := func() time.Time { return start }
	svc, err := clerkinvite.New(clerkinvite.Config{API: b.goAPI, Store: clerkinvitetest.NewMemoryStore(), Now: now})
	require.NoError(t, err)
	m, err := svc.Invite(t.Context(), clerkinvite.InviteParams{
		TenantID: "t1", Email: ada, RedirectURL: site, ExpiresInDays: 3, PublicMetadata: object{"Role": "ü"},
	})
	require.NoError(t, err)
	page := call[pageJS[invitationJS]](t, b, "invitations.getInvitationList", object{"query": ada, "status": "pending"})
	require.Equal(t, 1, page.TotalCount)
	require.Len(t, page.Data, 1)
	require.Equal(t, m.InvitationID, page.Data[0].ID)
	requireView(t, b, ada, page.Data[0])
	require.JSONEq(t, fmt.Sprintf(`{"Role":"ü","clerkinvite":{"id":%q,"send":1}}`, m.ID), string(page.Data[0].PublicMetadata))

	// JavaScript revokes it, and Reconcile detects that.
	revoked := call[invitationJS](t, b, "invitations.revokeInvitation", m.InvitationID)
	requireView(t, b, ada, revoked)
	_, err = svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	m, err = svc.Get(t.Context(), clerkinvite.Ref{TenantID: "t1", Email: ada})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRevoked, m.Status)

	// JavaScript invites, and the service treats the invitation as another application's.
	theirs := call[invitationJS](t, b, "invitations.createInvitation", object{"emailAddress": "grace@example.com"})
	m, err = svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "t1", Email: "grace@example.com"})
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.NotEqual(t, theirs.ID, m.InvitationID)
	page = call[pageJS[invitationJS]](t, b, "invitations.getInvitationList", object{"query": "grace@example.com", "orderBy": "+created_at"})
	require.Equal(t, 2, page.TotalCount)
	require.Equal(t, []string{theirs.ID, m.InvitationID}, []string{page.Data[0].ID, page.Data[1].ID})
}

// Pages, orders, filters and counts.
func TestTheSDKListsInvitations(t *testing.T) {
	t.Parallel()
	b := newBoth(t, startPeer(t, "sdk.mjs"))
	for i := range 25 {
		_, err := b.goAPI.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{
			Email: fmt.Sprintf("p%02d@example.com", (i*7)%25), ExpiresInDays: 1 + (i*11)%25,
		})
		require.NoError(t, err)
		b.clock.Advance(time.Second)
	}
	list := func(args object) pageJS[invitationJS] {
		return call[pageJS[invitationJS]](t, b, "invitations.getInvitationList", args)
	}
	b.requests()
	require.Len(t, list(nil).Data, 10, "Clerk's default")
	require.Equal(t, []string{"GET /v1/invitations?paginated=true"}, b.requests())

	read, err := b.goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{})
	require.NoError(t, err)
	for order, less := range map[string]func(a, b clerkinvite.Invitation) int{
		"created_at":    func(a, b clerkinvite.Invitation) int { return a.CreatedAt.Compare(b.CreatedAt) },
		"email_address": func(a, b clerkinvite.Invitation) int { return strings.Compare(a.Email, b.Email) },
		"expires_at":    func(a, b clerkinvite.Invitation) int { return a.ExpiresAt.Compare(*b.ExpiresAt) },
	} {
		for _, sign := range []string{"", "+", "-"} {
			want := slices.SortedStableFunc(slices.Values(read), less)
			if sign == "-" {
				slices.Reverse(want)
			}
			for offset := 0; offset < 30; offset += 10 {
				page := list(object{"orderBy": sign + order, "limit": 10, "offset": offset})
				require.Equal(t, 25, page.TotalCount)
				require.Len(t, page.Data, min(10, 25-offset))
				for i, got := range page.Data {
					requireSame(t, want[offset+i], got)
				}
			}
		}
	}

	// One of each status. Without a status, Clerk's list has all but the revoked ones.
	ids := []string{read[0].ID, read[1].ID, read[2].ID}
	call[invitationJS](t, b, "invitations.revokeInvitation", ids[0])
	b.clerk.ExpireNow(ids[1])
	_, err = b.clerk.AcceptInvitation(ids[2])
	require.NoError(t, err)
	for status, want := range map[string][]string{"revoked": ids[:1], "expired": ids[1:2], "accepted": ids[2:]} {
		page := list(object{"status": status})
		require.Equal(t, len(want), page.TotalCount)
		for i, got := range page.Data {
			require.Equal(t, want[i], got.ID)
			requireView(t, b, got.EmailAddress, got)
		}
	}
	require.Equal(t, 22, list(object{"status": "pending"}).TotalCount)
	require.Equal(t, 24, list(object{"limit": 1}).TotalCount)
	require.Equal(t, 1, list(object{"query": ids[2]}).TotalCount)
	require.Equal(t, 0, list(object{"query": "nobody@example.com"}).TotalCount)
	require.Empty(t, list(object{"query": "nobody@example.com"}).Data)
}

// attempt is the same request from both sides.
type attempt struct {
	method string
	args   []any
	inGo   func(t *testing.T, b *both) error
}

func creating(r clerkinvite.InvitationRequest) attempt {
	args := object{"emailAddress": r.Email}
	for name, value := range map[string]string{"redirectUrl": r.RedirectURL, "templateSlug": r.Template} {
		if value != "" {
			args[name] = value
		}
	}
	if r.PublicMetadata != nil {
		args["publicMetadata"] = r.PublicMetadata
	}
	return attempt{"invitations.createInvitation", []any{args}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.CreateInvitation(t.Context(), r)
		return err
	}}
}

func creatingAll(emails ...string) attempt {
	var items []any
	var rs []clerkinvite.InvitationRequest
	for _, email := range emails {
		items, rs = append(items, object{"emailAddress": email}), append(rs, clerkinvite.InvitationRequest{Email: email})
	}
	return attempt{"invitations.createInvitationBulk", []any{items}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.CreateInvitations(t.Context(), rs)
		return err
	}}
}

func revoking(id string) attempt {
	return attempt{"invitations.revokeInvitation", []any{id}, func(t *testing.T, b *both) error {
		_, err := b.goAPI.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id})
		return err
	}}
}

// refusal is a request that the fake rejects.
type refusal struct {
	name    string
	prepare func(b *both)
	attempt
	status int
	code   string
	meta   object // by the SDK's name
}

// requireRefusals requires that the SDK and the adapter read each refusal alike. waits are those of
// Retry-After, by the refusal's name.
func requireRefusals(t *testing.T, node *peer, cases []refusal, waits map[string]time.Duration) {
	t.Helper()
	for _, tc := range cases {
		b := newBoth(t, node)
		if tc.prepare != nil {
			tc.prepare(b)
		}
		got := refused(t, b, tc.method, tc.args...)
		trace := b.lastTrace()
		err := tc.inGo(t, b)
		var want *clerkinvite.APIError
		require.ErrorAs(t, err, &want, tc.name)
		require.Equal(t, tc.status, got.Status, tc.name)
		requireSameError(t, want, got, tc.name)
		var wait any = "(undefined)"
		if w, ok := waits[tc.name]; ok {
			wait = w.Seconds()
		}
		require.Equal(t, wait, got.RetryAfter, tc.name)
		require.Equal(t, want.RetryAfter, waits[tc.name], tc.name)
		require.Equal(t, want.Code, tc.code, tc.name)
		require.NotEmpty(t, want.TraceID)
		if tc.code == "" { // the body is not Clerk's, and the SDK takes the trace ID from it
			continue
		}
		require.Len(t, got.ClerkTraceID, 32)
		require.Equal(t, trace, got.ClerkTraceID, "the header's trace is the body's")
		for name, value := range got.Errors[0].Meta {
			if value == "(undefined)" {
				delete(got.Errors[0].Meta, name)
			}
		}
		if tc.meta == nil {
			tc.meta = object{}
		}
		require.Equal(t, tc.meta, got.Errors[0].Meta, tc.name)
		require.Zero(t, b.clerk.EmailsTo(ada), tc.name)
	}
}

// requireSameError compares an error in JavaScript with the same in Go.
func requireSameError(t *testing.T, want *clerkinvite.APIError, got *sdkError, what string) {
	t.Helper()
	require.Equal(t, want.StatusCode, got.Status, what)
	if want.Code == "" { // the body is not Clerk's
		require.Empty(t, got.Errors, what)
		return
	}
	require.Len(t, got.Errors, 1, what)
	require.Equal(t, want.Code, got.Errors[0].Code, what)
	require.Equal(t, want.Message, got.Errors[0].Message, what)
	require.Equal(t, want.LongMessage, got.Errors[0].LongMessage, what)
}

// The SDK and the adapter read a refusal alike.
func TestTheSDKReadsErrors(t *testing.T) {
	t.Parallel()
	node := startPeer(t, "sdk.mjs")
	row := tally.Start(t, "errors of the fake, as Clerk's JavaScript SDK and as our adapter read them")
	one, two := creating(clerkinvite.InvitationRequest{Email: ada}), creatingAll(ada, "b@example.com")
	invited := func(b *both) { b.clerk.CreateForeign(ada, nil) }
	user := func(b *both) { b.clerk.AddVerifiedUser(ada) }
	behaving := func(behavior clerkinvitetest.Behavior, then func(*both)) func(*both) {
		return func(b *both) {
			b.clerk.SetBehavior(behavior)
			then(b)
		}
	}
	failing := func(f clerkinvitetest.Fault) func(*both) {
		f.Times = -1
		return func(b *both) { b.clerk.Fail(f) }
	}
	limited := func(body clerkinvitetest.LimitBody) func(*both) {
		return func(b *both) {
			b.clerk.SetLimits(clerkinvitetest.Limits{Create: clerkinvitetest.Limit{Requests: 1, Per: time.Hour}, Body: body})
			_, err := b.clerk.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "first@example.com"})
			require.NoError(t, err)
		}
	}
	param := func(name string) object { return object{"paramName": name} }
	naming := object{"emailAddresses": []any{ada}}
	const first = "inv_000001"
	cases := []refusal{
		{"invited already", invited, one, 400, "duplicate_record", naming},
		{"a user already", user, one, 422, "form_identifier_exists", param("email_address")},
		{
			"a user already, 400", behaving(clerkinvitetest.Behavior{IdentifierExists400: true}, user), one,
			400, "form_identifier_exists", param("email_address"),
		},
		{"some of several", invited, two, 400, "duplicate_record", naming},
		{
			"users among several", user, two,
			422, "form_identifier_exists", object{"paramName": "email_address", "emailAddresses": []any{ada}},
		},
		{
			"no address", nil, creating(clerkinvite.InvitationRequest{Email: "a@b"}),
			422, "form_param_format_invalid", param("email_address"),
		},
		{
			"no template", nil, creating(clerkinvite.InvitationRequest{Email: ada, Template: "x"}),
			422, "form_param_value_invalid", param("template_slug"),
		},
		{
			"no URL", nil, creating(clerkinvite.InvitationRequest{Email: ada, RedirectURL: "x"}),
			422, "form_param_format_invalid", param("redirect_url"),
		},
		{
			"too much", nil, creating(clerkinvite.InvitationRequest{Email: ada, PublicMetadata: []byte(`{"x":"` + strings.Repeat("x", 9000) + `"}`)}),
			422, "form_param_exceeds_allowed_size", param("public_metadata"),
		},
		{"revoked already", func(b *both) {
			invited(b)
			b.clerk.RevokeInDashboard(first)
		}, revoking(first), 400, "invitation_already_revoked", nil},
		{"accepted already", func(b *both) {
			invited(b)
			_, _ = b.clerk.Accept(ada)
		}, revoking(first), 400, "invitation_already_accepted", nil},
		{"expired, refused", behaving(clerkinvitetest.Behavior{RevokeExpired: clerkinvitetest.ExpiredIsRefused}, func(b *both) {
			invited(b)
			b.clerk.ExpireNow(first)
		}), revoking(first), 400, "invitation_expired", nil},
		{"unknown", nil, revoking("inv_nobody"), 404, "resource_not_found", nil},
		{"too many", limited(clerkinvitetest.LimitJSON), one, 429, "too_many_requests", nil},
		{"too many, no body", limited(clerkinvitetest.LimitEmpty), one, 429, "", nil},
		{"too many, a page", limited(clerkinvitetest.LimitHTML), one, 429, "", nil},
		{"500", failing(clerkinvitetest.Fault{Kind: clerkinvitetest.JSON500}), one, 500, "internal_clerk_error", nil},
		{"502", failing(clerkinvitetest.Fault{Kind: clerkinvitetest.HTML502}), one, 502, "", nil},
		{
			"503 for a while", failing(clerkinvitetest.Fault{Kind: clerkinvitetest.Empty503, RetryAfter: 17 * time.Second}), one,
			503, "", nil,
		},
		{
			"an answer", failing(clerkinvitetest.Fault{Status: 403, Code: "not_allowed_access", Message: "no", Meta: object{"identifiers": []string{ada}}}),
			one, 403, "not_allowed_access", object{"identifiers": []any{ada}},
		},
	}
	waits := map[string]time.Duration{ // by the text of Retry-After
		"too many": time.Hour, "too many, no body": time.Hour, "too many, a page": time.Hour, "503 for a while": 17 * time.Second,
	}
	requireRefusals(t, node, cases, waits)

	b := newBoth(t, node)
	_, failure := b.try(t, "sk_test_wrong", "invitations.createInvitation", object{"emailAddress": ada})
	require.NotNil(t, failure)
	require.Equal(t, 401, failure.Status)
	require.Equal(t, "clerk_key_invalid", failure.Errors[0].Code)
	require.Empty(t, b.clerk.Invitations(ada))
	row.Done(fmt.Sprintf("%d ways to be refused", len(cases)+1), "0 fields that differ")
}

type userJS struct {
	ID                    string
	PrimaryEmailAddressID *string
	Banned, Locked        bool
	CreatedAt             int64
	PublicMetadata        json.RawMessage
	EmailAddresses        []struct {
		ID, EmailAddress string
		Verification     *struct{ Status, Strategy string }
	}
	Raw json.RawMessage `json:"_raw"`
}

// requireSameUser compares a user in JavaScript with the same in Go.
func requireSameUser(t *testing.T, want clerkinvite.User, got userJS) {
	t.Helper()
	require.Equal(t, want.ID, got.ID)
	require.Equal(t, want.Banned, got.Banned)
	require.Equal(t, want.Locked, got.Locked)
	require.Equal(t, want.CreatedAt, time.UnixMilli(got.CreatedAt).UTC())
	primary := ""
	if got.PrimaryEmailAddressID != nil {
		primary = *got.PrimaryEmailAddressID
	}
	require.Equal(t, want.PrimaryEmailID, primary)
	require.Len(t, got.EmailAddresses, len(want.Emails))
	for i, e := range got.EmailAddresses {
		verified := e.Verification != nil && e.Verification.Status == "verified"
		seen := clerkinvite.UserEmail{ID: e.ID, Address: e.EmailAddress, Verified: verified}
		require.Equal(t, want.Emails[i], seen)
	}
}

func TestTheSDKReadsUsers(t *testing.T) {
	t.Parallel()
	b := newBoth(t, startPeer(t, "sdk.mjs"))
	specs := []clerkinvitetest.UserSpec{
		{Emails: []clerkinvitetest.EmailSpec{{Address: ada, Verified: true}}},
		{Emails: []clerkinvitetest.EmailSpec{{Address: "Grace@Example.com"}, {Address: "grace2@example.com", Verified: true}}, Primary: 1},
		{Emails: []clerkinvitetest.EmailSpec{{Address: "r@example.com", Verified: true, Reserved: true}}, Banned: true},
		{Emails: []clerkinvitetest.EmailSpec{{Address: "n@example.com", NullVerification: true}}, Primary: -1},
		{Primary: -1, CreatedAt: start.Add(-time.Hour)},
	}
	for i := range 30 {
		specs = append(specs, clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: fmt.Sprintf("u%02d@example.com", i), Verified: i%2 == 0}}})
	}
	var all []clerkinvite.User
	var emails, ids []string
	for _, spec := range specs {
		b.clock.Advance(time.Millisecond)
		u := b.clerk.AddUser(spec)
		all = append(all, u)
		ids = append(ids, u.ID)
		for _, e := range spec.Emails {
			emails = append(emails, e.Address)
		}
	}
	for len(emails) < 100 {
		emails = append(emails, fmt.Sprintf("nobody%d@example.com", len(emails)))
	}
	b.requests()
	found := call[pageJS[userJS]](t, b, "users.getUserList", object{"emailAddress": emails, "limit": 500, "orderBy": "+created_at"})
	asked := b.requests()
	require.Len(t, asked, 2, "the SDK counts too")
	read, err := b.goAPI.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails})
	require.NoError(t, err)
	require.Len(t, read, len(all)-1, "one has no address")
	require.Equal(t, len(read), found.TotalCount)
	require.Len(t, found.Data, len(read))
	for i, u := range found.Data {
		requireSameUser(t, read[i], u)
	}

	byID := call[pageJS[userJS]](t, b, "users.getUserList", object{"userId": ids, "limit": 500})
	read, err = b.goAPI.FindUsers(t.Context(), clerkinvite.UserQuery{IDs: ids})
	require.NoError(t, err)
	require.Equal(t, len(all), byID.TotalCount)
	slices.Reverse(byID.Data) // newest first by default
	for i, u := range byID.Data {
		requireSameUser(t, read[i], u)
	}
	require.Equal(t, 3, call[int](t, b, "users.getCount", object{"emailAddress": []string{ada, "grace@example.com", "r@example.com", "x@example.com"}}))
	page := call[pageJS[userJS]](t, b, "users.getUserList", object{"limit": 10, "offset": 30, "orderBy": "+created_at"})
	require.Equal(t, len(all), page.TotalCount)
	require.Len(t, page.Data, len(all)-30)
	require.Empty(t, call[pageJS[userJS]](t, b, "users.getUserList", object{"emailAddress": []string{"x@example.com"}}).Data)
	for i, id := range ids {
		requireSameUser(t, all[i], call[userJS](t, b, "users.getUser", id))
	}
	failure := refused(t, b, "users.getUser", "user_nobody")
	require.Equal(t, 404, failure.Status)
	require.Equal(t, "resource_not_found", failure.Errors[0].Code)

	// Both see that the user is deleted.
	b.clerk.DeleteUser(ids[0])
	require.Equal(t, 404, refused(t, b, "users.getUser", ids[0]).Status)
	require.Equal(t, 0, call[pageJS[userJS]](t, b, "users.getUserList", object{"emailAddress": []string{ada}}).TotalCount)
}

// absent are fields that the SDK reads and the fake does not have. Clerk's description requires
// none of them, and nothing here uses them.
var absent = map[string][]string{
	"users.getUser":                {"imageUrl", "locale"},
	"invitations.createInvitation": nil,

	"organizations.createOrganizationInvitation": {"publicOrganizationData"}, // only in the list of all organizations
	"organizations.createOrganizationMembership": {"organization.createdBy"},
}

// The SDK finds every other field that it reads.
func TestTheSDKFindsEveryField(t *testing.T) {
	t.Parallel()
	b := newOrganizations(t, startPeer(t, "sdk.mjs"), clerkinvitetest.OrganizationSpec{})
	user := b.clerk.AddVerifiedUser("grace@example.com").ID
	for method, arg := range map[string]any{
		"users.getUser": user, "invitations.createInvitation": object{"emailAddress": ada},
		"organizations.createOrganizationInvitation": object{"organizationId": acme, "emailAddress": ada, "role": "org:member"},
		"organizations.createOrganizationMembership": object{"organizationId": acme, "userId": user, "role": "org:member"},
	} {
		var missing []string
		var look func(path string, value any)
		look = func(path string, value any) {
			switch value := value.(type) {
			case string:
				if value == "(undefined)" {
					missing = append(missing, strings.TrimPrefix(path, "."))
				}
			case []any:
				for _, v := range value {
					look(path, v)
				}
			case object:
				for name, v := range value {
					if name != "_raw" {
						look(path+"."+name, v)
					}
				}
			}
		}
		look("", call[any](t, b, method, arg))
		require.ElementsMatch(t, absent[method], missing, method)
	}
}

// The fake refuses what it does not implement, so a test that needs it cannot pass by mistake.
func TestFakeRejectsUnsupportedParameters(t *testing.T) {
	t.Parallel()
	b := newOrganizations(t, startPeer(t, "sdk.mjs"), clerkinvitetest.OrganizationSpec{})
	b.clerk.CreateForeign(ada, nil)
	user := b.clerk.AddVerifiedUser(ada).ID
	for method, args := range map[string][]any{
		"invitations.deleteInvitation": {"inv_000001"},
		"users.deleteUser":             {user},
		"users.createUser":             {object{"emailAddress": []string{ada}}},
		"users.banUser":                {user},
		"users.updateUserMetadata":     {user, object{"publicMetadata": object{}}},
		"waitlistEntries.list":         {},

		"organizations.deleteOrganization":           {acme},
		"organizations.updateOrganizationMembership": {object{"organizationId": acme, "userId": boss, "role": "org:member"}},
		"organizations.getOrganizationInvitation":    {object{"organizationId": acme, "invitationId": "orginv_000001"}},
	} {
		failure := refused(t, b, method, args...)
		require.Equal(t, 404, failure.Status, method)
		require.Equal(t, "The fake Clerk does not have this endpoint.", failure.Errors[0].LongMessage, method)
	}
	require.Len(t, b.clerk.OpenInvitations(ada), 1)
	call[userJS](t, b, "users.getUser", user)
	require.Equal(t, []clerkinvite.Membership{{OrganizationID: acme, UserID: boss, Role: "org:admin"}}, b.clerk.Members(acme))
}

// From the invitation to the user, seen by JavaScript alone. The webhook says the same.
func TestTheSDKSeesAnInvitationAccepted(t *testing.T) {
	t.Parallel()
	node := startPeer(t, "sdk.mjs")
	hooks := startPeer(t, "webhooks.mjs")
	for _, existing := range []bool{false, true} {
		b := newBoth(t, node)
		if existing {
			b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: ada}}})
		}
		inv := call[invitationJS](t, b, "invitations.createInvitation", object{
			"emailAddress": ada, "publicMetadata": object{"plan": "pro"}, "ignoreExisting": existing,
		})
		b.clock.Advance(time.Minute)
		w, err := b.clerk.Accept(ada)
		require.NoError(t, err)
		page := call[pageJS[invitationJS]](t, b, "invitations.getInvitationList", object{"status": "accepted", "query": inv.ID})
		require.Len(t, page.Data, 1)
		requireView(t, b, ada, page.Data[0])
		require.Equal(t, start.Add(time.Minute).UnixMilli(), page.Data[0].UpdatedAt)

		found := call[pageJS[userJS]](t, b, "users.getUserList", object{"emailAddress": []string{ada}})
		require.Len(t, found.Data, 1)
		require.Equal(t, "verified", found.Data[0].EmailAddresses[0].Verification.Status)
		require.Equal(t, "ticket", found.Data[0].EmailAddresses[0].Verification.Strategy)
		require.JSONEq(t, `{"plan":"pro"}`, string(found.Data[0].PublicMetadata))

		d := &delivery{secrets: []string{clerkinvitetest.WebhookSecret}, body: w.Payload, header: w.Sign(clerkinvitetest.WebhookSecret), now: w.At}
		said := hooks.verify(t, []*delivery{d})[0][0].Clerk
		require.True(t, said.Accepted, said.Error)
		var event struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		require.NoError(t, json.Unmarshal(said.Event, &event))
		require.Equal(t, map[bool]string{false: "user.created", true: "user.updated"}[existing], event.Type)
		require.JSONEq(t, string(found.Data[0].Raw), string(event.Data), "the event brings the user that the API has")
	}
}

// Random steps on one instance by two clients, one in Go and one in JavaScript. After each step
// both see the fake's state.
func TestTwoClientsSeeTheSame(t *testing.T) {
	t.Parallel()
	node := startPeer(t, "sdk.mjs")
	row := tally.Start(t, "one fake, our adapter and Clerk's JavaScript SDK side by side")
	seed, n := testkit.Random(t).Uint64(), times(100)
	counts := map[string]int{}
	const life = 50 // steps per instance
	for from := 0; from < n; from += life {
		r := rand.New(rand.NewPCG(seed, uint64(from)))
		b := newBoth(t, node)
		behaviors := clerkinvitetest.Behaviors()
		behavior := behaviors[r.IntN(len(behaviors))]
		for x := behavior.Behavior; x.NoExpiresAt || x.NoURL || x.ListHidesURL || x.Lag || x.RejectsUnicode; x = behavior.Behavior {
			behavior = behaviors[r.IntN(len(behaviors))]
		}
		b.clerk.SetBehavior(behavior.Behavior)
		emails := []string{ada, "grace@example.com", "Joan+x@example.com", "jean@bücher.example.com"}
		for step := range min(life, n-from) {
			b.clock.Advance(time.Duration(r.IntN(1000)) * time.Millisecond)
			email := emails[r.IntN(len(emails))]
			what := fmt.Sprintf("%s, step %d: ", behavior.Name, from+step)
			ignore, days := r.IntN(2) == 0, 1+r.IntN(365)
			invite := object{"emailAddress": email, "ignoreExisting": ignore, "expiresInDays": days, "publicMetadata": object{"step": step}}
			ask := clerkinvite.InvitationRequest{Email: email, IgnoreExisting: ignore, ExpiresInDays: days, PublicMetadata: fmt.Appendf(nil, `{"step":%d}`, step)}
			id := "inv_unknown"
			if held := b.clerk.Invitations(email); len(held) > 0 {
				id = held[r.IntN(len(held))].ID
			}
			outcome, action := "", r.IntN(9)
			switch action {
			case 0, 1:
				outcome = b.outcome(t, "invitations.createInvitation", invite)
			case 2:
				_, err := b.goAPI.CreateInvitation(t.Context(), ask)
				outcome = codeOf(t, err)
			case 3:
				outcome = b.outcome(t, "invitations.createInvitationBulk", []any{invite, object{"emailAddress": fmt.Sprintf("new%d@example.com", step)}})
			case 4:
				_, err := b.goAPI.CreateInvitations(t.Context(), []clerkinvite.InvitationRequest{ask, {Email: fmt.Sprintf("new%d@example.com", step)}})
				outcome = codeOf(t, err)
			case 5:
				outcome = b.outcome(t, "invitations.revokeInvitation", id)
			case 6:
				_, err := b.goAPI.RevokeInvitation(t.Context(), clerkinvite.RevokeRequest{ID: id})
				outcome = codeOf(t, err)
			case 7:
				_, err := b.clerk.Accept(email)
				outcome = fmt.Sprint(err == nil)
			case 8:
				b.clock.Advance(time.Duration(r.IntN(100)) * 24 * time.Hour)
			}
			counts[fmt.Sprintf("%d %s", action, outcome)]++
			what += fmt.Sprint(action, " ", outcome)
			for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
				args := object{"limit": 500, "orderBy": "+created_at"}
				if status != "" {
					args["status"] = status
				}
				seen := call[pageJS[invitationJS]](t, b, "invitations.getInvitationList", args)
				read, err := b.goAPI.ListInvitations(t.Context(), clerkinvite.InvitationQuery{Status: status})
				require.NoError(t, err, what)
				require.Len(t, seen.Data, len(read), what)
				require.Equal(t, len(read), seen.TotalCount, what)
				for i, got := range seen.Data {
					requireSame(t, read[i], got)
				}
			}
			found := call[pageJS[userJS]](t, b, "users.getUserList", object{"emailAddress": emails, "limit": 500, "orderBy": "+created_at"})
			read, err := b.goAPI.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails})
			require.NoError(t, err)
			require.Len(t, found.Data, len(read), what)
			for i, u := range found.Data {
				requireSameUser(t, read[i], u)
			}
		}
	}
	t.Logf("%v", counts)
	row.Done(fmt.Sprintf("%d steps, 6 views after each", n), "0 fields that differ", fmt.Sprintf("%d kinds of outcome", len(counts)))
}

// outcome returns the code with which a method of the SDK is refused, or "".
func (b *both) outcome(t *testing.T, method string, args ...any) string {
	t.Helper()
	_, failure := b.try(t, key, method, args...)
	if failure == nil {
		return ""
	}
	return failure.Errors[0].Code
}

func codeOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var failure *clerkinvite.APIError
	require.ErrorAs(t, err, &failure)
	return failure.Code
}
