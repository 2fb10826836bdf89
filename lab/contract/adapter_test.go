package contract_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// combinations returns requests with every combination of set and unset options, each for a
// different address.
func combinations() []clerkinvite.InvitationRequest {
	options := []func(r *clerkinvite.InvitationRequest){
		func(r *clerkinvite.InvitationRequest) { r.RedirectURL = "https://app.example.com/welcome?a=b#c" },
		func(r *clerkinvite.InvitationRequest) { r.ExpiresInDays = 365 },
		func(r *clerkinvite.InvitationRequest) { r.Template = "waitlist_invitation" },
		func(r *clerkinvite.InvitationRequest) { r.SkipEmail = true },
		func(r *clerkinvite.InvitationRequest) { r.IgnoreExisting = true },
		func(r *clerkinvite.InvitationRequest) {
			r.PublicMetadata = json.RawMessage(`{"a": {"b": [1, null, "<é>"]}, "clerkinvite": {"id": "x", "send": 1}}`)
		},
	}
	var all []clerkinvite.InvitationRequest
	for set := range 1 << len(options) {
		r := clerkinvite.InvitationRequest{Email: fmt.Sprintf("p%02d@example.com", set)}
		for i, option := range options {
			if set>>i&1 == 1 {
				option(&r)
			}
		}
		all = append(all, r)
	}
	return all
}

// eachBehavior runs a test with every behavior of the fake where Clerk's is unknown. Responses
// differ between behaviors, and the descriptions must allow all of them.
func eachBehavior(t *testing.T, test func(t *testing.T, b *bundle)) {
	t.Helper()
	needFolder(t)
	for _, behavior := range clerkinvitetest.Behaviors() {
		t.Run(behavior.Name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.clerk.SetBehavior(behavior.Behavior)
			test(t, b)
		})
	}
}

// requireCode asserts that err is an error of Clerk with this code.
func requireCode(t *testing.T, err error, status int, code string) *clerkinvite.APIError {
	t.Helper()
	var api *clerkinvite.APIError
	require.ErrorAs(t, err, &api)
	require.Equal(t, status, api.StatusCode, "%v", err)
	require.Equal(t, code, api.Code)
	require.NotEmpty(t, api.TraceID)
	return api
}

func TestCreateInvitation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, r := range combinations() {
		inv, err := b.api.CreateInvitation(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, r.Email, inv.Email)
	}
}

func TestCreateInvitations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := combinations()
	all = all[:len(all)-1] // the last request has three
	for rs := range slices.Chunk(all, 10) {
		invs, err := b.api.CreateInvitations(t.Context(), rs)
		require.NoError(t, err)
		require.Len(t, invs, len(rs))
	}
}

func TestCreateIsRefused(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		create := func(r clerkinvite.InvitationRequest) error {
			_, err := b.api.CreateInvitation(ctx, r)
			return err
		}
		bulk := func(rs ...clerkinvite.InvitationRequest) error {
			_, err := b.api.CreateInvitations(ctx, rs)
			return err
		}
		ada, grace, joan := clerkinvite.InvitationRequest{Email: "ada@example.com"},
			clerkinvite.InvitationRequest{Email: "grace@example.com"}, clerkinvite.InvitationRequest{Email: "joan@example.com"}
		b.clerk.AddVerifiedUser(grace.Email)

		require.NoError(t, create(ada))
		requireCode(t, create(ada), 400, "duplicate_record")
		requireCode(t, bulk(joan, ada), 400, "duplicate_record")
		var api *clerkinvite.APIError
		require.ErrorAs(t, create(grace), &api)
		require.Equal(t, "form_identifier_exists", api.Code)
		require.ErrorAs(t, bulk(grace), &api)
		require.Equal(t, "form_identifier_exists", api.Code)

		ada.IgnoreExisting, grace.IgnoreExisting = true, true
		require.NoError(t, create(ada))
		require.NoError(t, create(grace))
		require.NoError(t, bulk(ada))

		requireCode(t, create(clerkinvite.InvitationRequest{Email: "ada@localhost"}), 422, "form_param_format_invalid")
		requireCode(t, bulk(clerkinvite.InvitationRequest{Email: "ada@localhost"}), 422, "form_param_format_invalid")
		requireCode(t, create(clerkinvite.InvitationRequest{Email: "x@example.com", RedirectURL: "x"}), 422, "form_param_format_invalid")
		large, err := json.Marshal(map[string]string{"a": strings.Repeat("x", 8<<10)})
		require.NoError(t, err)
		requireCode(t, create(clerkinvite.InvitationRequest{Email: "x@example.com", PublicMetadata: large}), 422, "form_param_exceeds_allowed_size")
	})
}

func TestListInvitations(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		ids := map[clerkinvite.InvitationStatus]string{}
		for _, status := range []clerkinvite.InvitationStatus{clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
			for i := range 2 {
				inv := b.clerk.CreateForeign(fmt.Sprintf("%s+%d@example.com", status, i), map[string]any{"number": i})
				ids[status] = inv.ID
				b.clock.Advance(time.Second)
			}
		}
		_, err := b.clerk.AcceptInvitation(ids[clerkinvite.InvitationAccepted])
		require.NoError(t, err)
		b.clerk.RevokeInDashboard(ids[clerkinvite.InvitationRevoked])
		b.clerk.ExpireNow(ids[clerkinvite.InvitationExpired])
		b.clerk.Settle()

		for _, status := range []clerkinvite.InvitationStatus{"", clerkinvite.InvitationPending, clerkinvite.InvitationAccepted, clerkinvite.InvitationRevoked, clerkinvite.InvitationExpired} {
			for _, query := range []string{"", "pending+0@example.com", "PENDING+0@example.com", "unknown@example.com", ids[status]} {
				for _, q := range []clerkinvite.InvitationQuery{{}, {NewestFirst: true}, {Limit: 1, Offset: 1}, {Limit: 1, Offset: 1, NewestFirst: true}, {Limit: 500, Offset: 100}} {
					q.Query, q.Status = query, status
					page, err := b.api.ListInvitations(ctx, q)
					require.NoError(t, err)
					for _, inv := range page {
						require.True(t, status == inv.Status || status == "" && inv.Status != clerkinvite.InvitationRevoked)
					}
					require.True(t, len(page) > 0 || query != "" || q.Offset > 0, "there are some of every status")
				}
			}
		}
	})
}

func TestRevokeInvitation(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		revoke := func(id string) error {
			inv, err := b.api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: id})
			if err == nil {
				require.Equal(t, clerkinvite.InvitationRevoked, inv.Status)
			}
			return err
		}
		id := b.clerk.CreateForeign("ada@example.com", nil).ID
		require.NoError(t, revoke(id))
		requireCode(t, revoke(id), 400, "invitation_already_revoked")

		id = b.clerk.CreateForeign("grace@example.com", nil).ID
		_, err := b.clerk.AcceptInvitation(id)
		require.NoError(t, err)
		requireCode(t, revoke(id), 400, "invitation_already_accepted")

		id = b.clerk.CreateForeign("joan@example.com", nil).ID
		b.clerk.ExpireNow(id)
		_ = revoke(id) // each behavior responds differently

		requireCode(t, revoke("inv_unknown"), 404, "resource_not_found")
	})
}

// variants are users that differ as much as the fake allows.
func variants() []clerkinvitetest.UserSpec {
	email := func(e clerkinvitetest.EmailSpec, address string) clerkinvitetest.EmailSpec {
		e.Address = address
		return e
	}
	kinds := []clerkinvitetest.EmailSpec{{}, {Verified: true}, {Reserved: true}, {Verified: true, Reserved: true}, {NullVerification: true}, {Verified: true, NullVerification: true}}
	specs := []clerkinvitetest.UserSpec{{Primary: -1}, {}, {ID: "user_2g7np7Hrk0SN6kj5EDMLDaKNL0S", Banned: true}}
	for i, kind := range kinds {
		specs = append(specs,
			clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{email(kind, fmt.Sprintf("v%d@example.com", i))}},
			clerkinvitetest.UserSpec{
				Primary: i%3 - 1,
				Banned:  i%2 == 0,
				Emails: []clerkinvitetest.EmailSpec{
					email(kind, fmt.Sprintf("w%d@example.com", i)), email(kinds[(i+1)%len(kinds)], fmt.Sprintf("W%d+ü@example.com", i)),
				},
			})
	}
	return specs
}

func TestFindUsers(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		ctx := t.Context()
		var emails, ids []string
		for _, spec := range variants() {
			ids = append(ids, b.clerk.AddUser(spec).ID)
			for _, e := range spec.Emails {
				emails = append(emails, e.Address)
			}
		}
		b.clerk.CreateForeign("invited@example.com", map[string]any{"a": 1})
		_, err := b.clerk.Accept("invited@example.com")
		require.NoError(t, err)
		b.clerk.Settle()
		emails = append(emails, "invited@example.com")
		if strings.HasSuffix(t.Name(), "/addresses_in_Unicode_rejected") { // which the descriptions do not foresee
			emails = slices.DeleteFunc(emails, func(email string) bool { return strings.ContainsFunc(email, func(r rune) bool { return r > 127 }) })
		}

		found, err := b.api.FindUsers(ctx, clerkinvite.UserQuery{IDs: ids})
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(found), len(ids)-1) // the list may omit a user
		for _, q := range []clerkinvite.UserQuery{
			{}, {Emails: emails}, {Emails: emails[:1]}, {IDs: ids[:1]}, {Emails: emails, IDs: ids}, {Emails: []string{"unknown@example.com"}}, {IDs: []string{"user_unknown"}},
		} {
			_, err := b.api.FindUsers(ctx, q)
			require.NoError(t, err)
		}
	})
}

func TestGetUser(t *testing.T) {
	t.Parallel()
	eachBehavior(t, func(t *testing.T, b *bundle) {
		for _, spec := range variants() {
			added := b.clerk.AddUser(spec)
			u, err := b.api.GetUser(t.Context(), added.ID)
			require.NoError(t, err)
			require.Equal(t, &added, u)
		}
		_, err := b.api.GetUser(t.Context(), "user_unknown")
		requireCode(t, err, 404, "resource_not_found")
	})
}

// Queries that do not fit into one request or one response are split.
func TestFindUsersInParts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const shared = "shared@example.com"
	for range 501 {
		b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: shared}}})
	}
	found, err := b.api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{shared}})
	require.NoError(t, err)
	require.Len(t, found, 501)
	require.Equal(t, 2, b.clerk.RequestCount())

	b.clerk.ResetCounts()
	var emails, ids []string
	for i := range 50 {
		emails = append(emails, fmt.Sprintf("%s%d@example.com", strings.Repeat("x", 200), i))
		ids = append(ids, fmt.Sprintf("user_%s%d", strings.Repeat("x", 200), i))
	}
	found, err = b.api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: emails, IDs: ids})
	require.NoError(t, err)
	require.Empty(t, found)
	require.Greater(t, b.clerk.RequestCount(), 2)
}

// calls has every call of the adapter.
func calls() map[string]func(ctx context.Context, api clerkinvite.ClerkAPI) error {
	return map[string]func(ctx context.Context, api clerkinvite.ClerkAPI) error{
		"FindUsers": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.FindUsers(ctx, clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
			return err
		},
		"GetUser": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.GetUser(ctx, "user_000001")
			return err
		},
		"CreateInvitation": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.CreateInvitation(ctx, clerkinvite.InvitationRequest{Email: "ada@example.com"})
			return err
		},
		"CreateInvitations": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.CreateInvitations(ctx, []clerkinvite.InvitationRequest{{Email: "ada@example.com"}})
			return err
		},
		"ListInvitations": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.ListInvitations(ctx, clerkinvite.InvitationQuery{})
			return err
		},
		"RevokeInvitation": func(ctx context.Context, api clerkinvite.ClerkAPI) error {
			_, err := api.RevokeInvitation(ctx, clerkinvite.RevokeRequest{ID: "inv_000001"})
			return err
		},
	}
}

// Responses that any call can get.
func TestCallsAreRefused(t *testing.T) {
	t.Parallel()
	needFolder(t)
	for name, call := range calls() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.clerk.SetSecretKey("sk_test_2")
			requireCode(t, call(t.Context(), b.api), 401, "clerk_key_invalid")

			b = setup(t)
			b.clerk.SetLimits(clerkinvitetest.Limits{All: clerkinvitetest.Limit{Requests: 1, Per: time.Minute}})
			_ = call(t.Context(), b.api)
			require.Equal(t, time.Minute, requireCode(t, call(t.Context(), b.api), 429, "too_many_requests").RetryAfter)

			b = setup(t)
			b.clerk.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.JSON500, Times: -1})
			requireCode(t, call(t.Context(), b.api), 500, "internal_clerk_error")
		})
	}
}

// The adapter reads responses that Clerk's schemas allow and the fake never sends: every status of
// an address, and every field that can be null or missing.
func TestAdapterReadsWhatTheSchemasAllow(t *testing.T) {
	t.Parallel()
	newest := descriptions(t)[len(versions)-1]
	user := template(t, newest.doc.Components.Schemas["User"].Value)
	address := template(t, newest.doc.Components.Schemas["EmailAddress"].Value)
	verification := newest.doc.Components.Schemas["EmailAddress"].Value.Properties["verification"].Value

	seen := map[string]bool{}
	check := func(verification map[string]any) {
		address["id"], address["email_address"], address["verification"] = "idn_1", "ada@example.com", verification
		verified := false
		if verification == nil {
			address["verification"] = nil
		} else {
			verified = verification["status"] == "verified"
			seen[verification["status"].(string)] = true
		}
		user["id"], user["email_addresses"] = "user_1", []any{address}
		b := serve(t, answering([]any{user}))
		found, err := b.api.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Equal(t, []clerkinvite.UserEmail{{ID: "idn_1", Address: "ada@example.com", Verified: verified}}, found[0].Emails)
	}
	check(nil)
	for object, schema := range verification.Discriminator.Mapping {
		way := newest.doc.Components.Schemas[strings.TrimPrefix(schema.Ref, "#/components/schemas/")].Value
		for _, status := range way.Properties["status"].Value.Enum {
			v := template(t, way)
			v["object"], v["status"] = object, status
			check(v)
		}
	}
	require.Equal(t, map[string]bool{"unverified": true, "verified": true, "failed": true, "expired": true, "transferable": true}, seen)

	invitation := template(t, newest.doc.Components.Schemas["Invitation"].Value)
	for _, more := range []map[string]any{{}, {"expires_at": nil}, {"revoked": false, "url": "", "expires_at": 1}} {
		invitation["id"], invitation["email_address"], invitation["status"] = "inv_1", "ada@example.com", "pending"
		maps.Copy(invitation, more)
		b := serve(t, answering(invitation))
		inv, err := b.api.CreateInvitation(t.Context(), clerkinvite.InvitationRequest{Email: "ada@example.com"})
		require.NoError(t, err)
		require.Equal(t, "inv_1", inv.ID)
		b = serve(t, answering([]any{invitation}))
		page, err := b.api.ListInvitations(t.Context(), clerkinvite.InvitationQuery{})
		require.NoError(t, err)
		require.Len(t, page, 1, "the shape that the description has")
	}
}

// template returns the smallest object of a schema, with null where allowed.
func template(t *testing.T, schema *openapi3.Schema) map[string]any {
	t.Helper()
	object := map[string]any{}
	for _, name := range schema.Required {
		p := schema.Properties[name].Value
		switch {
		case p.Nullable:
			object[name] = nil
		case len(p.Enum) > 0:
			object[name] = p.Enum[0]
		case p.Type.Is(openapi3.TypeString):
			object[name] = "from_oauth_google" // matches the pattern of a strategy
		case p.Type.Is(openapi3.TypeBoolean):
			object[name] = false
		case p.Type.Is(openapi3.TypeInteger):
			object[name] = 0
		case p.Type.Is(openapi3.TypeArray):
			object[name] = []any{}
		case p.Type.Is(openapi3.TypeObject):
			object[name] = map[string]any{}
		default:
			t.Fatal(errors.New("no value known for " + name))
		}
	}
	return object
}

// answering is a Clerk that always sends the same response.
func answering(value any) http.Handler {
	body, err := json.Marshal(value)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})
}
