package cost_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// TestMain stops the PostgreSQL server that the tests have started.
func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// cost is what a verb costs in one situation, exactly.
type cost struct {
	verb, situation string
	outcome         string // from outcomeOf: shows that the situation is as described
	requests        int    // to Clerk
	kinds           string // of these requests
	statements      int    // as testkit.StatementCounter counts them

	before func(t *testing.T, b *costBundle) // creates the situation; may be nil
	call   func(ctx context.Context, b *costBundle) (any, error)
}

// costBundle is a service with the real adapter over HTTP and a real PostgreSQL. The later fields are set by some situations.
type costBundle struct {
	*testkit.Rig

	pool    *pgxpool.Pool
	pgx     *clerkinvite.PgxStore
	tx      pgx.Tx
	webhook clerkinvitetest.Webhook
	user    clerkinvite.User
	id      string // of the active member
	hooked  *clerkinvite.Service
}

// costs is the table. Each row starts with an empty database, a Clerk without users, and a new Service.
func costs() []cost {
	var is situations
	var do verbs
	return []cost{
		{"Invite", "a new person", "pending", 2, "GET /users, POST /invitations", 2, nil, do.invite},
		{"Invite", "a duplicate", "409", 0, "", 1, is.pending, do.invite},
		{"Invite", "a duplicate, pending and unchanged for a day", "409", 2, "2 GET /invitations", 2, is.pendingForADay, do.invite},
		{"Invite", "a duplicate, active and unchanged for a day", "409", 1, "GET /users/{id}", 2, is.activeForADay, do.invite},
		{"Invite", "a duplicate that was revoked in the dashboard", "pending", 6, "4 GET /invitations, GET /users, POST /invitations", 7, is.revokedInDashboard, do.invite},
		{"Invite", "a duplicate whose user was replaced", "active", 5, "GET /invitations, 3 GET /users, GET /users/{id}", 7, is.replaced, do.invite},
		{"Invite", "a duplicate whose user has another address", "pending", 3, "GET /users, GET /users/{id}, POST /invitations", 5, is.moved, do.invite},
		{"Invite", "a member's new address", "409", 2, "GET /invitations, GET /users", 10, is.moved, do.inviteNewAddress},
		{"Invite", "bad input", "422", 0, "", 0, nil, do.inviteWronged},
		{"Invite", "an existing user", "active", 1, "GET /users", 2, is.user, do.invite},
		{"Invite", "an existing user with two addresses", "active", 1, "GET /users", 4, is.userOfTwo, do.invite},
		{"Invite", "a banned user", "422", 1, "GET /users", 2, is.banned, do.invite},
		{"Invite", "a user with the address unverified", "pending", 2, "GET /users, POST /invitations", 2, is.unverified, do.invite},
		{"Invite", "another application's invitation is open", "pending", 6, "2 GET /invitations, 2 GET /users, 2 POST /invitations", 2, is.invitedElsewhere, do.invite},
		{"Invite", "a reserved member", "pending", 2, "GET /users, POST /invitations", 3, is.reserved, do.invite},
		{"Invite", "a revoked member", "pending", 4, "2 GET /invitations, GET /users, POST /invitations", 4, is.revoked, do.invite},
		{"Invite", "an expired member", "pending", 4, "2 GET /invitations, GET /users, POST /invitations", 4, is.expired, do.invite},
		{"Invite", "a removed member, still a user", "active", 2, "GET /invitations, GET /users", 3, is.removed, do.invite},
		{"Invite", "a removed member, user deleted", "pending", 4, "2 GET /invitations, GET /users, POST /invitations", 4, is.removedAndDeleted, do.invite},
		{"Invite", "the limit for single invitations", "pending", 3, "GET /users, POST /invitations, POST /invitations/bulk", 3, is.limited("POST /invitations"), do.invite},
		{"Invite", "the limits for single and for ten", "502", 3, "GET /users, POST /invitations, POST /invitations/bulk", 4, is.limited("POST /invitations", "POST /invitations/bulk"), do.invite},
		{"Invite", "Clerk fails at the create", "502", 2, "GET /users, POST /invitations", 1, is.failing, do.invite},
		{"Invite", "a new person, with OnChange", "pending", 2, "GET /users, POST /invitations", 6, is.hooked, do.inviteHooked},
		{"Invite", "a new person, with Mirror", "pending", 2, "GET /users, POST /invitations", 2, is.mirrored, do.invite},

		{"InviteMany", "1 person", "1 pending", 2, "GET /users, POST /invitations", 11, nil, do.inviteMany(1)},
		{"InviteMany", "25 people", "25 pending", 4, "GET /users, 3 POST /invitations/bulk", 13, nil, do.inviteMany(25)},
		{"InviteMany", "25: 5 users, 5 duplicates", "5 409, 5 active, 15 pending", 3, "GET /users, 2 POST /invitations/bulk", 12, is.fivePendingFiveUsers, do.inviteMany(25)},
		{"InviteMany", "25 duplicates", "25 409", 0, "", 1, is.manyPending(25), do.inviteMany(25)},
		{"InviteMany", "25 whose invitations have expired", "25 pending", 54, "50 GET /invitations, GET /users, 3 POST /invitations/bulk", 40, is.manyExpired(25), do.inviteMany(25)},
		{"InviteMany", "100 people", "100 pending", 11, "GET /users, 10 POST /invitations/bulk", 27, nil, do.inviteMany(100)},

		{"Reserve", "a new person", "reserved", 0, "", 1, nil, do.reserve},
		{"Reserve", "a duplicate", "409", 0, "", 1, is.reserved, do.reserve},
		{"Reserve", "a revoked member", "reserved", 0, "", 2, is.revoked, do.reserve},
		{"ReserveMany", "2,500 people", "2500 reserved", 0, "", 3, nil, do.reserveMany(2500)},
		{"ReserveMany", "25: 5 duplicates", "5 409, 20 reserved", 0, "", 1, is.manyReserved(5), do.reserveMany(25)},
		{"InTx.Reserve", "a new person", "reserved", 0, "", 1, is.inTx(nil), do.reserveInTx},
		{"InTx.Reserve", "a duplicate", "409", 0, "", 1, is.inTx(is.reserved), do.reserveInTx},
		{"InTx.Reserve", "a revoked member", "reserved", 0, "", 2, is.inTx(is.revoked), do.reserveInTx},
		{"InTx.ReserveMany", "2,500 people", "2500 reserved", 0, "", 3, is.inTx(nil), do.reserveManyInTx(2500)},

		{"Adopt", "2,500 people", "2500 active", 0, "", 3, nil, do.adopt(2500)},
		{"Adopt", "25 a second time", "25 active", 0, "", 1, is.adopted(25), do.adopt(25)},
		{"Adopt", "25: 5 with users of other members", "5 409, 20 active", 0, "", 2, is.holding(5), do.adopt(25)},
		{"InTx.Adopt", "2,500 people", "2500 active", 0, "", 3, is.inTx(nil), do.adoptInTx(2500)},

		{"Deliver", "nothing due", "0 claimed, 0 invited, 0 linked", 0, "", 1, is.pending, do.deliver},
		{"Deliver", "1 due", "1 claimed, 1 invited, 0 linked", 2, "GET /users, POST /invitations", 10, is.reserved, do.deliver},
		{"DeliverMembers", "1 of 25 due", "1 claimed, 1 invited, 0 linked", 2, "GET /users, POST /invitations", 3, is.manyReserved(25), do.deliverMembers},
		{"Deliver", "25 due", "25 claimed, 25 invited, 0 linked", 4, "GET /users, 3 POST /invitations/bulk", 14, is.manyReserved(25), do.deliver},
		{"Deliver", "25 due, all users", "25 claimed, 0 invited, 25 linked", 1, "GET /users", 9, is.manyReservedUsers(25), do.deliver},
		{"Deliver", "1 whose create's response was lost", "1 claimed, 1 invited, 0 linked", 3, "2 GET /invitations, GET /users", 10, is.lost, do.deliver},
		{"Deliver", "1 whose create failed", "1 claimed, 1 invited, 0 linked", 4, "2 GET /invitations, GET /users, POST /invitations", 11, is.failedOnce, do.deliver},

		{"Resend", "pending", "pending", 5, "2 GET /invitations, GET /users, POST /invitations, POST /invitations/revoke", 4, is.pending, do.resend},
		{"Resend", "within the cooldown", "429", 0, "", 1, is.justInvited, do.resend},
		{"Resend", "accepted, webhook lost", "active", 2, "GET /invitations, GET /users", 3, is.accepted, do.resend},
		{"Resend", "not pending", "409", 0, "", 1, is.reserved, do.resend},

		{"Link", "pending", "done", 1, "GET /invitations", 1, is.pending, do.link},
		{"Link", "not pending", "409", 0, "", 1, is.reserved, do.link},

		{"Revoke", "pending", "revoked", 1, "POST /invitations/revoke", 2, is.pending, do.revoke},
		{"Revoke", "pending, resent before", "revoked", 2, "GET /invitations, POST /invitations/revoke", 2, is.resent, do.revoke},
		{"Revoke", "reserved", "revoked", 0, "", 2, is.reserved, do.revoke},
		{"Revoke", "revoked", "revoked", 0, "", 1, is.revoked, do.revoke},
		{"Revoke", "accepted, webhook lost", "409", 2, "GET /users, POST /invitations/revoke", 4, is.accepted, do.revoke},

		{"Remove", "active", "removed", 0, "", 2, is.active, do.remove},
		{"Remove", "pending", "removed", 1, "POST /invitations/revoke", 2, is.pending, do.remove},
		{"Remove", "reserved", "removed", 0, "", 2, is.reserved, do.remove},
		{"Remove", "removed", "removed", 0, "", 1, is.removed, do.remove},

		{"Purge", "active", "done", 1, "GET /invitations", 3, is.active, do.purge},
		{"Purge", "pending", "done", 2, "GET /invitations, POST /invitations/revoke", 3, is.pending, do.purge},
		{"Purge", "reserved", "done", 1, "GET /invitations", 3, is.reserved, do.purge},
		{"Purge", "unknown", "404", 0, "", 1, nil, do.purge},

		{"Update", "role and data", "pending", 0, "", 2, is.pending, do.update},
		{"Get", "known", "pending", 0, "", 1, is.pending, do.get},
		{"Get", "unknown", "404", 0, "", 1, nil, do.get},
		{"Get", "by Clerk user", "active", 0, "", 1, is.active, do.getByUser},
		{"Get", "by ID", "active", 0, "", 1, is.active, do.getByID},
		{"Get", "by Clerk user, of another tenant", "404", 0, "", 1, is.active, do.getElsewhere},
		{"ByUser", "a member", "1 active", 0, "", 1, is.active, do.byUser},
		{"Counts", "250 members", "250 reserved", 0, "", 1, is.manyReserved(250), do.counts},
		{"List", "100 of 250", "100 reserved", 0, "", 1, is.manyReserved(250), do.list(false)},
		{"List", "100 of 250, newest first", "100 reserved", 0, "", 1, is.manyReserved(250), do.list(true)},
		{"All", "250, by 100", "250 reserved", 0, "", 3, is.manyReserved(250), do.all},
		{"History", "known", "2 entries", 0, "", 2, is.pending, do.history},

		{"Resolve", "a member waits", "1 active", 0, "", 2, is.accepted, do.resolve},
		{"Resolve", "no member waits", "none", 0, "", 1, is.stranger, do.resolve},
		{"ResolveUser", "a member waits", "1 active", 1, "GET /users/{id}", 2, is.accepted, do.resolveUser},
		{"ResolveUser", "no member waits", "none", 1, "GET /users/{id}", 1, is.stranger, do.resolveUser},
		{"ResolveUser", "a member's new address", "1 active", 1, "GET /users/{id}", 2, is.moved, do.resolveUser},
		{"ResolveUser", "no such user", "404", 1, "GET /users/{id}", 0, is.deleted, do.resolveUser},

		{"HandleEvent", "a member waits", "1 active", 1, "GET /users/{id}", 2, is.accepted, do.handleEvent},
		{"HandleEvent", "members in 3 tenants wait", "3 active", 1, "GET /users/{id}", 2, is.acceptedInThree, do.handleEvent},
		{"HandleEvent", "a replay", "none", 0, "", 1, is.replayed, do.handleEvent},
		{"HandleEvent", "no member waits", "none", 0, "", 1, is.stranger, do.handleEvent},
		{"HandleEvent", "a member's new address", "1 active", 1, "GET /users/{id}", 2, is.moved, do.handleEvent},
		{"HandleEvent", "a member, same address", "none", 0, "", 1, is.updated, do.handleEvent},
		{"HandleEvent", "a deleted member", "1 removed", 1, "GET /users/{id}", 2, is.deleted, do.handleEvent},
		{"HandleEvent", "a deleted user without members", "none", 0, "", 1, is.deletedStranger, do.handleEvent},
		{"WebhookHandler", "a member waits", "204", 1, "GET /users/{id}", 2, is.accepted, do.post(clerkinvitetest.WebhookSecret)},
		{"WebhookHandler", "a replay", "204", 0, "", 1, is.replayed, do.post(clerkinvitetest.WebhookSecret)},
		{"WebhookHandler", "a bad signature", "400", 0, "", 0, is.accepted, do.post("whsec_bm90IHRoZSBzZWNyZXQgb2YgdGhpcyBlbmRwb2ludA")},

		{"Reconcile", "no members", "0 members, 0 changed", 1, "GET /invitations", 3, nil, do.reconcile(nil)},
		{"Reconcile", "1,200 members, half pending, half active", "1200 members, 0 changed", 17, "5 GET /invitations, 12 GET /users", 7, is.members(600, 600), do.reconcile(nil)},
		{"Reconcile", "an active member's new address", "1 members, 1 changed", 2, "GET /invitations, GET /users", 5, is.moved, do.reconcile(nil)},
		{"Reconcile", "10 pending, of them 3 accepted, 2 expired, 1 revoked", "10 members, 6 changed", 6, "4 GET /invitations, 2 GET /users", 12, is.astray, do.reconcile(nil)},
		{"Reconcile", "the same 10, dry run", "10 members, 6 changed", 6, "4 GET /invitations, 2 GET /users", 9, is.astray, do.reconcile(&clerkinvite.ReconcileOptions{DryRun: true})},
		{"Reconcile", "25 adopted with open invitations", "25 members, 0 changed", 4, "4 GET /invitations", 6, is.adoptedPending(25, true), do.reconcile(nil)},
		{"Reconcile", "25 adopted with unknown invitations, all users", "25 members, 25 changed", 5, "4 GET /invitations, GET /users", 7, is.adoptedPending(25, false), do.reconcile(nil)},
		{"Run", "one pass, no members", "done", 1, "GET /invitations", 6, nil, do.run(nil, 2)},
		{"Run", "one pass, 25 due, no Reconcile", "done", 4, "GET /users, 3 POST /invitations/bulk", 14, is.manyReserved(25), do.run(&clerkinvite.RunOptions{ReconcileInterval: -1}, 1)},

		{"Invite", "organization: a new person", "pending", 2, "GET /users, POST /organizations/invitations", 2, nil, do.invite},
		{"Invite", "organization: an existing user", "pending", 3, "GET /organizations/memberships, GET /users, POST /organizations/invitations", 2, is.user, do.invite},
		{"Invite", "organization: an existing user, with AddExisting", "active", 3, "GET /organizations/memberships, GET /users, POST /organizations/memberships", 2, is.user, do.inviteAdding},
		{"InviteMany", "organization: 25 people", "25 pending", 4, "GET /users, 3 POST /organizations/invitations/bulk", 13, nil, do.inviteMany(25)},
		{"Resend", "organization: pending", "pending", 4, "GET /organizations/invitations, GET /users, POST /organizations/invitations, POST /organizations/invitations/revoke", 3, is.pending, do.resend},
		{"Revoke", "organization: pending", "revoked", 1, "POST /organizations/invitations/revoke", 2, is.pending, do.revoke},
		{"Remove", "organization: active", "removed", 2, "DELETE /organizations/memberships, GET /organizations/invitations", 3, is.added, do.remove},
		{"Remove", "organization: active, with an open invitation", "removed", 3, "DELETE /organizations/memberships, GET /organizations/invitations, POST /organizations/invitations/revoke", 4, is.activeWithLink, do.remove},
		{"Remove", "organization: pending", "removed", 2, "GET /users, POST /organizations/invitations/revoke", 2, is.pending, do.remove},
		{"Reconcile", "organization: 25 pending", "25 members, 0 changed", 9, "4 GET /invitations, 4 GET /organization_invitations, GET /users", 6, is.manyPending(25), do.reconcile(nil)},

		{"PgxStore.Backlog", "250 due", "250 due", 0, "", 1, is.manyReserved(250), do.backlog},
		{"PgxStore.Validate", "up to date", "done", 0, "", 15, nil, do.validate},
		{"PgxStore.Migrate", "up to date", "done", 0, "", 6, nil, do.migrate},
	}
}

// row returns c as a row of the Markdown table.
func (c cost) row() string {
	requests := fmt.Sprint(c.requests)
	if c.requests > 0 {
		requests += ": " + c.kinds
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %d |", c.verb, c.situation, c.outcome, requests, c.statements)
}

// counting has a lease so long that it does not end on a busy machine: a second attempt would be counted, too.
var counting = testkit.Options{Configure: func(c *clerkinvite.Config) { c.Lease = time.Hour }}

// TestCost checks the table. With -v it prints the table in Markdown.
func TestCost(t *testing.T) {
	t.Parallel()
	count := &testkit.StatementCounter{}
	pool := pgtest.New(t).Pool(t, func(c *pgxpool.Config) { c.ConnConfig.Tracer = count })
	require.NoError(t, clerkinvite.NewPgxStore(pool, nil).Migrate(t.Context()))
	for _, c := range costs() {
		t.Log(c.row())
		t.Run(c.verb+"/"+c.situation, func(t *testing.T) {
			_, err := pool.Exec(t.Context(), "DELETE FROM clerkinvite_member; DELETE FROM clerkinvite_limit", pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			clerk := clerkinvitetest.NewClerk()
			o := counting
			o.Clock = testkit.NewClock()
			if strings.HasPrefix(c.situation, "organization: ") {
				o.Organization = "org_acme"
			}
			store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Now: o.Clock.Now})
			b := &costBundle{Rig: testkit.New(t, o, clerk, testkit.Adapter(t, testkit.Serve(t, clerk)), store), pool: pool, pgx: store}
			if c.before != nil {
				c.before(t, b)
			}
			clerk.ResetCounts()
			count.N.Store(0)
			got, err := c.call(t.Context(), b)
			counted := cost{
				verb: c.verb, situation: c.situation, outcome: outcomeOf(got, err),
				requests: clerk.RequestCount(), kinds: kindsOf(clerk.Requests()), statements: int(count.N.Load()),
			}
			require.Equal(t, c.row(), counted.row(), "The cost has changed. If that is intended, update the table in cost_test.go and docs/performance.md. "+
				"If the cost is higher and that is not intended, the change is wrong")
		})
	}
}

// Every verb is in the table.
func TestCostOfEveryVerb(t *testing.T) {
	t.Parallel()
	listed := make(map[string]bool)
	for _, c := range costs() {
		listed[c.verb] = true
	}
	// Format is not a verb, InTx and WithTx cost nothing, and the methods of a Store are the statements that the verbs are charged for.
	for prefix, public := range map[string]reflect.Type{
		"": reflect.TypeFor[*clerkinvite.Service](), "InTx.": reflect.TypeFor[*clerkinvite.Reserver](), "PgxStore.": reflect.TypeFor[*clerkinvite.PgxStore](),
	} {
		for i := range public.NumMethod() {
			method := public.Method(i)
			_, ofStore := reflect.TypeFor[clerkinvite.Store]().MethodByName(method.Name)
			if method.Name == "Format" || method.Name == "InTx" || method.Name == "WithTx" || ofStore && prefix == "PgxStore." {
				continue
			}
			require.True(t, listed[prefix+method.Name], "what does %s cost? Add it to the table", prefix+method.Name)
		}
	}
}

// kindsOf formats requests for the table.
func kindsOf(requests map[clerkinvitetest.Call]int) string {
	var kinds []string
	for _, call := range slices.Sorted(maps.Keys(requests)) {
		if requests[call] == 1 {
			kinds = append(kinds, string(call))
		} else {
			kinds = append(kinds, fmt.Sprint(requests[call], " ", call))
		}
	}
	return strings.Join(kinds, ", ")
}

// outcomeOf formats the result of a verb for the table: the state, the number of members in each state, or the HTTP status
// of the error.
func outcomeOf(got any, err error) string {
	if err != nil {
		status, _ := clerkinvite.HTTPError(err)
		return fmt.Sprint(status)
	}
	states := make(map[string]int)
	switch got := got.(type) {
	case nil:
		return "done"
	case string:
		return got
	case *clerkinvite.Member:
		return string(got.Status)
	case []*clerkinvite.Member:
		for _, m := range got {
			states[string(m.Status)]++
		}
	case []clerkinvite.Result:
		for _, r := range got {
			if r.Err != nil {
				states[outcomeOf(nil, r.Err)]++
			} else {
				states[string(r.Member.Status)]++
			}
		}
	default:
		return fmt.Sprintf("%T", got)
	}
	parts := make([]string, 0, len(states))
	for _, state := range slices.Sorted(maps.Keys(states)) {
		parts = append(parts, fmt.Sprint(states[state], " ", state))
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// verbs has the calls that are counted.
type verbs struct{}

func (verbs) invite(ctx context.Context, b *costBundle) (any, error) {
	return b.Invite(ctx, testkit.Params("acme", testkit.Ada.Email))
}

func (verbs) inviteAdding(ctx context.Context, b *costBundle) (any, error) {
	p := testkit.Params(testkit.Ada.TenantID, testkit.Ada.Email)
	p.Organization = &clerkinvite.Organization{ID: "org_acme", AddExisting: true}
	return b.Invite(ctx, p)
}

func (verbs) inviteNewAddress(ctx context.Context, b *costBundle) (any, error) {
	return b.Invite(ctx, testkit.Params("acme", "ada@example.org"))
}

func (verbs) inviteWronged(ctx context.Context, b *costBundle) (any, error) {
	return b.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: testkit.Ada.Email, ExpiresInDays: 400})
}

func (verbs) inviteHooked(ctx context.Context, b *costBundle) (any, error) {
	return b.hooked.Invite(ctx, testkit.Params("acme", testkit.Ada.Email))
}

func (verbs) inviteMany(n int) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		return b.InviteMany(ctx, testkit.People(n, "p"), nil)
	}
}

func (verbs) reserve(ctx context.Context, b *costBundle) (any, error) {
	return b.Reserve(ctx, testkit.Params("acme", testkit.Ada.Email))
}

func (verbs) reserveMany(n int) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		return b.ReserveMany(ctx, testkit.People(n, "p"))
	}
}

func (verbs) reserveInTx(ctx context.Context, b *costBundle) (any, error) {
	return b.InTx(b.pgx.WithTx(b.tx)).Reserve(ctx, testkit.Params("acme", testkit.Ada.Email))
}

func (verbs) reserveManyInTx(n int) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		return b.InTx(b.pgx.WithTx(b.tx)).ReserveMany(ctx, testkit.People(n, "p"))
	}
}

func (verbs) adopt(n int) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) { return b.Adopt(ctx, adopted(n)) }
}

func (verbs) adoptInTx(n int) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		return b.InTx(b.pgx.WithTx(b.tx)).Adopt(ctx, adopted(n))
	}
}

// adopted returns n people with a Clerk user each.
func adopted(n int) []clerkinvite.AdoptParams {
	people := make([]clerkinvite.AdoptParams, n)
	for i, p := range testkit.People(n, "p") {
		people[i] = clerkinvite.AdoptParams{InviteParams: p, ClerkUserID: fmt.Sprintf("user_%d", i)}
	}
	return people
}

func (verbs) deliver(ctx context.Context, b *costBundle) (any, error) {
	r, err := b.Deliver(ctx, nil)
	return fmt.Sprintf("%d claimed, %d invited, %d linked", r.Claimed, r.Invited, r.Linked), err
}

func (verbs) deliverMembers(ctx context.Context, b *costBundle) (any, error) {
	r, err := b.DeliverMembers(ctx, []clerkinvite.Ref{testkit.Acme("p7@example.com")})
	return fmt.Sprintf("%d claimed, %d invited, %d linked", r.Claimed, r.Invited, r.Linked), err
}

func (verbs) resend(ctx context.Context, b *costBundle) (any, error) {
	return b.Resend(ctx, testkit.Ada)
}

func (verbs) link(ctx context.Context, b *costBundle) (any, error) {
	_, err := b.Link(ctx, testkit.Ada)
	return nil, err
}

func (verbs) revoke(ctx context.Context, b *costBundle) (any, error) {
	return b.Revoke(ctx, testkit.Ada)
}

func (verbs) remove(ctx context.Context, b *costBundle) (any, error) {
	return b.Remove(ctx, testkit.Ada)
}

func (verbs) purge(ctx context.Context, b *costBundle) (any, error) {
	return nil, b.Purge(ctx, testkit.Ada)
}

func (verbs) update(ctx context.Context, b *costBundle) (any, error) {
	role, data := "admin", json.RawMessage(`{"seat":7}`)
	return b.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role, Data: &data})
}

func (verbs) get(ctx context.Context, b *costBundle) (any, error) { return b.Get(ctx, testkit.Ada) }

func (verbs) getByUser(ctx context.Context, b *costBundle) (any, error) {
	return b.Get(ctx, clerkinvite.Ref{TenantID: "acme", ClerkUserID: b.user.ID})
}

func (verbs) getByID(ctx context.Context, b *costBundle) (any, error) {
	return b.Get(ctx, clerkinvite.Ref{TenantID: "acme", ID: b.id})
}

func (verbs) getElsewhere(ctx context.Context, b *costBundle) (any, error) {
	return b.Get(ctx, clerkinvite.Ref{TenantID: "globex", ClerkUserID: b.user.ID})
}

func (verbs) byUser(ctx context.Context, b *costBundle) (any, error) {
	return b.ByUser(ctx, b.user.ID)
}

func (verbs) counts(ctx context.Context, b *costBundle) (any, error) {
	counts, err := b.Counts(ctx, "acme")
	return fmt.Sprint(counts[clerkinvite.StatusReserved], " reserved"), err
}

func (verbs) list(newestFirst bool) func(ctx context.Context, b *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		page, err := b.List(ctx, clerkinvite.ListParams{TenantID: "acme", NewestFirst: newestFirst})
		return page.Members, err
	}
}

func (verbs) all(ctx context.Context, b *costBundle) (any, error) {
	var all []*clerkinvite.Member
	for m, err := range b.All(ctx, clerkinvite.ListParams{TenantID: "acme"}) {
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (verbs) history(ctx context.Context, b *costBundle) (any, error) {
	moves, err := b.History(ctx, testkit.Ada)
	return fmt.Sprint(len(moves), " entries"), err
}

func (verbs) resolve(ctx context.Context, b *costBundle) (any, error) { return b.Resolve(ctx, b.user) }

func (verbs) resolveUser(ctx context.Context, b *costBundle) (any, error) {
	return b.ResolveUser(ctx, b.user.ID)
}

func (verbs) handleEvent(ctx context.Context, b *costBundle) (any, error) {
	e, err := b.Verifier.Verify(b.webhook.Payload, b.webhook.Sign(clerkinvitetest.WebhookSecret))
	if err != nil {
		return nil, err
	}
	return b.HandleEvent(ctx, e)
}

func (verbs) post(secret string) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		w := httptest.NewRecorder()
		b.WebhookHandler(b.Verifier).ServeHTTP(w, b.webhook.Request(secret, "/").WithContext(ctx))
		return fmt.Sprint(w.Code), nil
	}
}

func (verbs) reconcile(opts *clerkinvite.ReconcileOptions) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		r, err := b.Reconcile(ctx, opts)
		return fmt.Sprintf("%d members, %d changed", r.Members, r.Activated+r.Removed+r.Expired+r.Revoked+r.Moved), err
	}
}

// run calls Run until the given number of deliveries and reconciliations have ended.
func (verbs) run(opts *clerkinvite.RunOptions, passes int32) func(context.Context, *costBundle) (any, error) {
	return func(ctx context.Context, b *costBundle) (any, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		last := &lastPass{cancel: cancel}
		last.left.Store(passes)
		svc, err := clerkinvite.New(clerkinvite.Config{API: b.API, Store: b.Store, Now: b.Clock.Now, Lease: time.Hour, Observer: last})
		if err != nil {
			return nil, err
		}
		if err := svc.Run(ctx, opts); !errors.Is(err, context.Canceled) {
			return nil, err
		}
		return nil, nil
	}
}

// lastPass is an Observer that cancels after the last of the remaining passes.
type lastPass struct {
	cancel context.CancelFunc
	left   atomic.Int32
}

func (l *lastPass) Start(ctx context.Context, op string) (context.Context, func(error)) {
	return ctx, func(error) {
		if (op == "Deliver" || op == "Reconcile") && l.left.Add(-1) == 0 {
			l.cancel()
		}
	}
}

func (l *lastPass) StateChanged(context.Context, clerkinvite.Status, clerkinvite.Status) {}

func (verbs) backlog(ctx context.Context, b *costBundle) (any, error) {
	backlog, err := b.pgx.Backlog(ctx, b.Clock.Now())
	return fmt.Sprint(backlog.Due, " due"), err
}

func (verbs) validate(ctx context.Context, b *costBundle) (any, error) {
	return nil, b.pgx.Validate(ctx)
}

func (verbs) migrate(ctx context.Context, b *costBundle) (any, error) { return nil, b.pgx.Migrate(ctx) }

// situations creates the situations. They concern ada, or the people of testkit.People.
type situations struct{}

func (situations) justInvited(t *testing.T, b *costBundle) { b.MustInvite(t, testkit.Ada.Email) }

func (situations) adopted(n int) func(t *testing.T, b *costBundle) {
	return func(t *testing.T, b *costBundle) {
		_, err := b.Adopt(t.Context(), adopted(n))
		require.NoError(t, err)
	}
}

// Other members have the users.
func (situations) holding(n int) func(t *testing.T, b *costBundle) {
	return func(t *testing.T, b *costBundle) {
		people := adopted(n)
		for i := range people {
			people[i].Email = "other-" + people[i].Email
		}
		_, err := b.Adopt(t.Context(), people)
		require.NoError(t, err)
	}
}

func (situations) adoptedPending(n int, known bool) func(t *testing.T, b *costBundle) {
	return func(t *testing.T, b *costBundle) {
		people := adopted(n)
		for i := range people {
			people[i].ClerkUserID = clerkinvite.PendingID(fmt.Sprintf("inv_unknown%d", i))
			if known {
				people[i].ClerkUserID = clerkinvite.PendingID(b.Clerk.CreateForeign(people[i].Email, nil).ID)
			} else {
				b.Clerk.AddVerifiedUser(people[i].Email)
			}
		}
		_, err := b.Adopt(t.Context(), people)
		require.NoError(t, err)
	}
}

// Later than the cooldown.
func (is situations) pending(t *testing.T, b *costBundle) {
	is.justInvited(t, b)
	b.Clock.Advance(time.Hour)
}

func (is situations) pendingForADay(t *testing.T, b *costBundle) {
	is.justInvited(t, b)
	b.Clock.Advance(24 * time.Hour)
}

func (is situations) activeForADay(t *testing.T, b *costBundle) {
	is.user(t, b)
	is.pendingForADay(t, b)
}

func (is situations) revokedInDashboard(t *testing.T, b *costBundle) {
	is.pendingForADay(t, b)
	b.Clerk.RevokeInDashboard(b.Member(t, testkit.Ada.Email).InvitationID)
}

func (is situations) replaced(t *testing.T, b *costBundle) {
	b.Clerk.AddVerifiedUser("bob@example.com")
	b.MustInvite(t, "bob@example.com")
	is.activeForADay(t, b)
	b.Clerk.DeleteUser(b.user.ID)
	b.Clerk.AddVerifiedUser(testkit.Ada.Email)
}

// The user of an active member has changed the address.
func (is situations) moved(t *testing.T, b *costBundle) {
	is.activeForADay(t, b)
	b.webhook = b.Clerk.ChangeEmail(b.user.ID, "ada@example.org")
}

func (is situations) updated(t *testing.T, b *costBundle) {
	is.active(t, b)
	b.webhook = b.Clerk.UserUpdated(b.user.ID)
}

// hooked is a host with OnChange whose process has already written.
func (situations) hooked(t *testing.T, b *costBundle) {
	hook := func(context.Context, pgx.Tx, []clerkinvite.Change) error { return nil }
	var err error
	b.hooked, err = clerkinvite.New(clerkinvite.Config{
		API: b.API, Store: clerkinvite.NewPgxStore(b.pool, &clerkinvite.PgxOptions{OnChange: hook, Now: b.Clock.Now}), Now: b.Clock.Now, Lease: time.Hour,
	})
	require.NoError(t, err)
	_, err = b.hooked.Reserve(t.Context(), testkit.Params("acme", "first@example.com"))
	require.NoError(t, err)
}

func (situations) mirrored(t *testing.T, b *costBundle) {
	up, err := clerkinvite.Mirror{Table: "host", TenantID: "tenant_id", Email: "email", ClerkUserID: "clerk_user_id"}.Up()
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), "CREATE TABLE host (tenant_id text, email text, clerk_user_id text, UNIQUE (tenant_id, email));"+up)
	require.NoError(t, err)
}

func (situations) reserved(t *testing.T, b *costBundle) {
	_, err := b.Reserve(t.Context(), testkit.Params("acme", testkit.Ada.Email))
	require.NoError(t, err)
}

func (situations) user(_ *testing.T, b *costBundle) {
	b.user = b.Clerk.AddVerifiedUser(testkit.Ada.Email)
}

func (situations) userOfTwo(_ *testing.T, b *costBundle) {
	b.Clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
		{Address: testkit.Ada.Email, Verified: true}, {Address: "ada@work.example.com", Verified: true},
	}})
}

func (is situations) banned(t *testing.T, b *costBundle) {
	is.user(t, b)
	b.Clerk.BanUser(b.user.ID)
}

func (situations) unverified(_ *testing.T, b *costBundle) { b.Clerk.SignUp(testkit.Ada.Email, false) }

func (situations) invitedElsewhere(_ *testing.T, b *costBundle) {
	b.Clerk.CreateForeign(testkit.Ada.Email, nil)
}

func (is situations) active(t *testing.T, b *costBundle) {
	is.user(t, b)
	is.pending(t, b)
	b.id = b.Member(t, testkit.Ada.Email).ID
}

func (is situations) added(t *testing.T, b *costBundle) {
	is.user(t, b)
	_, err := verbs{}.inviteAdding(t.Context(), b)
	require.NoError(t, err)
}

func (is situations) activeWithLink(t *testing.T, b *costBundle) {
	is.pending(t, b)
	is.user(t, b)
	found, err := b.Clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{testkit.Ada.Email}})
	require.NoError(t, err)
	b.Clerk.JoinOrganization("org_acme", found[0].ID, "org:member")
	_, err = b.ResolveUser(t.Context(), found[0].ID)
	require.NoError(t, err)
}

func (is situations) revoked(t *testing.T, b *costBundle) {
	is.pending(t, b)
	_, err := b.Revoke(t.Context(), testkit.Ada)
	require.NoError(t, err)
}

func (is situations) removed(t *testing.T, b *costBundle) {
	is.active(t, b)
	_, err := b.Remove(t.Context(), testkit.Ada)
	require.NoError(t, err)
}

func (is situations) removedAndDeleted(t *testing.T, b *costBundle) {
	is.removed(t, b)
	b.Clerk.DeleteUser(b.user.ID)
}

func (is situations) expired(t *testing.T, b *costBundle) {
	is.justInvited(t, b)
	b.Clock.Advance(31 * 24 * time.Hour)
}

func (is situations) resent(t *testing.T, b *costBundle) {
	is.pending(t, b)
	_, err := b.Resend(t.Context(), testkit.Ada)
	require.NoError(t, err)
}

func (situations) limited(calls ...clerkinvitetest.Call) func(*testing.T, *costBundle) {
	return func(_ *testing.T, b *costBundle) {
		for _, call := range calls {
			b.Clerk.Fail(clerkinvitetest.Fault{Call: call, Status: http.StatusTooManyRequests, RetryAfter: time.Hour})
		}
	}
}

func (situations) failing(_ *testing.T, b *costBundle) {
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.JSON500})
}

// The response to a create was lost, and the lease has ended.
func (is situations) lost(t *testing.T, b *costBundle) {
	b.Clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset, When: clerkinvitetest.After})
	_, err := b.TryInvite(t, testkit.Ada.Email)
	require.Error(t, err)
	b.Clock.Advance(2 * time.Hour)
}

func (is situations) failedOnce(t *testing.T, b *costBundle) {
	is.failing(t, b)
	_, err := b.TryInvite(t, testkit.Ada.Email)
	require.Error(t, err)
	b.Clock.Advance(2 * time.Hour)
}

// The person has accepted, and the webhook has not arrived.
func (is situations) accepted(t *testing.T, b *costBundle) {
	is.pending(t, b)
	var err error
	b.webhook, err = b.Clerk.Accept(testkit.Ada.Email)
	require.NoError(t, err)
	found, err := b.Clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"ada@example.com"}})
	require.NoError(t, err)
	b.user = found[0]
}

func (is situations) acceptedInThree(t *testing.T, b *costBundle) {
	for _, tenant := range []string{"globex", "initech"} {
		_, err := b.Invite(t.Context(), testkit.Params(tenant, testkit.Ada.Email))
		require.NoError(t, err)
	}
	is.accepted(t, b)
}

func (is situations) replayed(t *testing.T, b *costBundle) {
	is.accepted(t, b)
	require.Len(t, b.Receive(t, b.webhook), 1)
}

// A user who is not a member of any tenant.
func (is situations) stranger(t *testing.T, b *costBundle) {
	is.user(t, b)
	b.webhook = b.Clerk.UserCreated(b.user.ID)
}

func (is situations) deleted(t *testing.T, b *costBundle) {
	is.active(t, b)
	b.webhook = b.Clerk.DeleteUser(b.user.ID)
}

func (is situations) deletedStranger(t *testing.T, b *costBundle) {
	is.user(t, b)
	b.webhook = b.Clerk.DeleteUser(b.user.ID)
}

func (situations) manyReserved(n int) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		_, err := b.ReserveMany(t.Context(), testkit.People(n, "p"))
		require.NoError(t, err)
	}
}

func (is situations) manyReservedUsers(n int) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		for _, p := range testkit.People(n, "p") {
			b.Clerk.AddVerifiedUser(p.Email)
		}
		is.manyReserved(n)(t, b)
	}
}

func (is situations) manyExpired(n int) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		is.manyPending(n)(t, b)
		b.Clock.Advance(31 * 24 * time.Hour)
	}
}

func (situations) manyPending(n int) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		_, err := b.InviteMany(t.Context(), testkit.People(n, "p"), nil)
		require.NoError(t, err)
	}
}

// Of p0 to p24 the first five are pending, and the last five are users.
func (is situations) fivePendingFiveUsers(t *testing.T, b *costBundle) {
	is.manyPending(5)(t, b)
	for _, p := range testkit.People(25, "p")[20:] {
		b.Clerk.AddVerifiedUser(p.Email)
	}
}

func (is situations) members(pending, active int) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		for _, p := range testkit.People(active, "user") {
			b.Clerk.AddVerifiedUser(p.Email)
		}
		_, err := b.InviteMany(t.Context(), append(testkit.People(active, "user"), testkit.People(pending, "p")...), nil)
		require.NoError(t, err)
		b.Clock.Advance(time.Hour)
	}
}

// Of ten pending members, three have accepted, two have expired, and one was revoked in the dashboard. No webhook arrived.
func (is situations) astray(t *testing.T, b *costBundle) {
	is.manyPending(10)(t, b)
	b.Clock.Advance(time.Hour)
	for i, p := range testkit.People(6, "p") {
		id := b.Member(t, p.Email).InvitationID
		switch {
		case i < 3:
			_, err := b.Clerk.Accept(p.Email)
			require.NoError(t, err)
		case i < 5:
			b.Clerk.ExpireNow(id)
		default:
			b.Clerk.RevokeInDashboard(id)
		}
	}
}

// inTx creates the situation and begins a host's transaction. Its BEGIN and ROLLBACK are not counted.
func (situations) inTx(before func(*testing.T, *costBundle)) func(*testing.T, *costBundle) {
	return func(t *testing.T, b *costBundle) {
		if before != nil {
			before(t, b)
		}
		var err error
		b.tx, err = b.pool.Begin(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, b.tx.Rollback(context.WithoutCancel(t.Context()))) })
	}
}

// docs/performance.md contains only rows of the table, and a row of every verb that makes a request or more than
// three statements. The methods of PgxStore are not verbs.
func TestCostsAreDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/performance.md")
	require.NoError(t, err)
	require.Contains(t, string(doc), "\nAll other verbs make no request and at most three statements, ")
	_, table, _ := strings.Cut(string(doc), "| verb | situation | outcome | requests to Clerk | statements |\n|-|-|-|-|-|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows, verbs := make(map[string]bool), make(map[string]bool)
	for _, c := range costs() {
		rows[c.row()] = true
		if !strings.HasPrefix(c.verb, "PgxStore.") && (c.requests > 0 || c.statements > 3) {
			verbs[c.verb] = true
		}
	}
	require.NotEmpty(t, verbs)
	for row := range strings.Lines(table) {
		require.True(t, rows[strings.TrimSpace(row)], "cost_test.go does not have this row: %s", row)
		delete(verbs, strings.Split(row, " | ")[0][2:])
	}
	require.Empty(t, verbs, "docs/performance.md does not have these verbs")
}

// Reading PostgreSQL's clock costs one statement every ten minutes, in the host's transaction if the verb runs in one.
func TestClockCost(t *testing.T) {
	t.Parallel()
	count := &testkit.StatementCounter{}
	store, pool := testkit.NewPgxStore(t, func(c *pgxpool.Config) { c.ConnConfig.Tracer, c.MaxConns = count, 1 })
	var ahead atomic.Int64
	svc, err := clerkinvite.New(clerkinvite.Config{
		API: clerkinvitetest.NewClerk(), Store: store, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	require.NoError(t, err)
	cost := func(n int64, verb func() error) {
		t.Helper()
		count.N.Store(0)
		require.NoError(t, verb())
		require.Equal(t, n, count.N.Load())
	}
	i := 0
	reserve := func() error {
		i++
		tx, err := pool.Begin(t.Context())
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, err = svc.InTx(store.WithTx(tx)).Reserve(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
		return errors.Join(err, tx.Commit(t.Context()))
	}
	invite := func() error {
		i++
		_, err := svc.Invite(t.Context(), testkit.Params("acme", fmt.Sprintf("p%d@example.com", i)))
		return err
	}
	cost(4, reserve)
	cost(3, reserve)
	cost(2, invite)
	ahead.Store(int64(time.Hour)) // this machine's clock was set
	cost(3, invite)
	cost(2, invite)
	cost(3, reserve)
}

// Each 100 people cost 11 requests and the same number of statements.
func TestInviteManyCost(t *testing.T) {
	t.Parallel()
	count := &testkit.StatementCounter{}
	b := testkit.NewPostgres(t, counting, func(c *pgxpool.Config) { c.ConnConfig.Tracer = count })
	statements := make(map[int]int)
	for i, n := range []int{100, 200, 300, 1000} {
		ps := testkit.People(n, fmt.Sprintf("round%d-", i))
		b.Clerk.ResetCounts()
		count.N.Store(0)
		results, err := b.InviteMany(t.Context(), ps, nil)
		require.NoError(t, err)
		for _, r := range results {
			require.Equal(t, clerkinvite.StatusPending, r.Member.Status)
		}
		require.Equal(t, n/100+n/10, b.Clerk.RequestCount(), "%v", b.Clerk.Requests())
		statements[n] = int(count.N.Load())
	}
	perChunk := statements[200] - statements[100]
	require.Equal(t, perChunk, statements[300]-statements[200])
	require.Equal(t, 7*perChunk, statements[1000]-statements[300])
	require.Equal(t, 6+2*10, perChunk, "the turn and its end, three limits, the claim, and for each request its limit and the settling")
	require.Equal(t, 1, statements[100]-perChunk, "the reservation")
}
