package clerkinvite_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("CLERKINVITE_TEST_CHILD"); mode != "" {
		child(mode) // the test binary as another process of the host's
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}

// clock is a clock that only moves when a test says so.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bundle is a service with everything around it.
type bundle struct {
	*clerkinvite.Service
	clerk    *clerkinvitetest.Clerk
	clock    *clock // the library's; the fake's starts as the same
	api      clerkinvite.ClerkAPI
	store    clerkinvite.Store
	verifier *clerkinvite.WebhookVerifier
}

type options struct {
	configure func(*clerkinvite.Config)
	timeout   time.Duration // of the adapter
}

// each runs the test twice: on the fake itself and the memory store, and on the
// real adapter over HTTP and a real PostgreSQL.
func each(t *testing.T, o options, test func(t *testing.T, b *bundle)) {
	t.Helper()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) { test(t, fresh(t, o)) })
}

// bothWays does so for a test of many cases, which each call fresh. They share a
// database, each with a schema of its own.
func bothWays(t *testing.T, test func(t *testing.T, fresh func(*testing.T, options) *bundle)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T, o options) *bundle {
			t.Helper()
			clerk := clerkinvitetest.NewClerk()
			clerk.SetTimeout(o.timeout / 4)
			return newBundle(t, o, clerk, clerk, clerkinvitetest.NewMemoryStore())
		})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		pool := pgtest.New(t).Pool(t, func(c *pgxpool.Config) { c.MaxConns = 16 })
		var schemas atomic.Int64
		up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
		require.NoError(t, err)
		test(t, func(t *testing.T, o options) *bundle {
			t.Helper()
			schema := fmt.Sprint("case", schemas.Add(1))
			store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema})
			// In one round trip, which is much faster than Migrate.
			_, err := pool.Exec(t.Context(), "CREATE SCHEMA "+schema+"; SET LOCAL search_path TO "+schema+"; "+string(up), pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			clerk := clerkinvitetest.NewClerk()
			return newBundle(t, o, clerk, adapter(t, serve(t, clerk), o.timeout), store)
		})
	})
}

// sample returns all of a list on the memory store, and every fourth on PostgreSQL, whose
// part in what a test is about has tests of its own.
func sample[T any](t *testing.T, list []T) (some []T) {
	t.Helper()
	for i, v := range list {
		if !strings.Contains(t.Name(), "/postgres") || i%4 == 0 {
			some = append(some, v)
		}
	}
	return some
}

// newRealBundle is a service on the real adapter over HTTP and a real PostgreSQL.
func newRealBundle(t *testing.T, o options, pool ...func(*pgxpool.Config)) *bundle {
	t.Helper()
	store := clerkinvite.NewPgxStore(pgtest.New(t).Pool(t, pool...), nil)
	require.NoError(t, store.Migrate(t.Context()))
	clerk := clerkinvitetest.NewClerk()
	return newBundle(t, o, clerk, adapter(t, serve(t, clerk), o.timeout), store)
}

func serve(t *testing.T, clerk *clerkinvitetest.Clerk) (url string) {
	t.Helper()
	srv := httptest.NewServer(clerk.Handler())
	t.Cleanup(srv.Close)
	return srv.URL + "/v1"
}

func adapter(t testing.TB, url string, timeout time.Duration) clerkinvite.ClerkAPI {
	t.Helper()
	api, err := clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: url, Timeout: timeout, CreateTimeout: timeout})
	require.NoError(t, err)
	return api
}

func newBundle(t *testing.T, o options, clerk *clerkinvitetest.Clerk, api clerkinvite.ClerkAPI, store clerkinvite.Store) *bundle {
	t.Helper()
	b := &bundle{clerk: clerk, clock: newClock(), api: api, store: store}
	clerk.SetNow(b.clock.Now)
	cfg := clerkinvite.Config{API: api, Store: store, Now: b.clock.Now}
	if o.configure != nil {
		o.configure(&cfg)
	}
	var err error
	b.Service, err = clerkinvite.New(cfg)
	require.NoError(t, err)
	b.verifier, err = clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: b.clock.Now})
	require.NoError(t, err)
	return b
}

// invite invites into tenant acme.
func (b *bundle) invite(t *testing.T, email string) (*clerkinvite.Member, error) {
	t.Helper()
	return b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
}

func (b *bundle) mustInvite(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := b.invite(t, email)
	require.NoError(t, err)
	return m
}

func (b *bundle) get(t *testing.T, email string) *clerkinvite.Member {
	t.Helper()
	m, err := b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: email})
	require.NoError(t, err)
	return m
}

// event sends a webhook through verification and HandleEvent.
func (b *bundle) event(t *testing.T, w clerkinvitetest.Webhook) []*clerkinvite.Member {
	t.Helper()
	e, err := b.verifier.Verify(w.Payload, w.Sign(clerkinvitetest.WebhookSecret))
	require.NoError(t, err)
	changed, err := b.HandleEvent(t.Context(), e)
	require.NoError(t, err)
	return changed
}

// requireInvited asserts that exactly one invitation of the address is open, that
// the row stands for it, and that so many emails went out.
func (b *bundle) requireInvited(t *testing.T, email string, emails int) *clerkinvite.Member {
	t.Helper()
	m := b.get(t, email)
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, m.Send, m.Sent)
	require.Nil(t, m.ClaimedUntil)
	require.Nil(t, m.NextAttemptAt)
	open := b.clerk.OpenInvitations(email)
	require.Len(t, open, 1)
	require.Equal(t, clerkinvite.PendingID(open[0].ID), m.ClerkUserID)
	require.Equal(t, emails, b.clerk.EmailsTo(email))
	return m
}

func TestInviteSomebodyNew(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		m := b.mustInvite(t, "  Ada@Example.COM ")
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, "ada@example.com", m.Email)
		require.NotEmpty(t, m.URL, "the caller gets the link")
		require.Equal(t, b.clock.Now(), m.InvitedAt.UTC())
		require.Equal(t, b.clock.Now().AddDate(0, 0, 30), m.ExpiresAt.UTC())
		id, ok := clerkinvite.InvitationID(m.ClerkUserID)
		require.True(t, ok)
		require.Equal(t, m.InvitationID, id)
		stored := b.requireInvited(t, "ada@example.com", 1)
		require.Empty(t, stored.URL, "the link is not stored")

		// The same again, in other writings, from now on costs Clerk nothing.
		b.clerk.ResetCounts()
		for _, email := range []string{"ada@example.com", "ADA@EXAMPLE.COM", " ada@eXample.com\n"} {
			_, err := b.invite(t, email)
			var dup *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, err, &dup)
			_, message := clerkinvite.HTTPError(err)
			require.Equal(t, "a member with email ada@example.com already exists in this tenant", message)
			require.Equal(t, `tenant "acme" already has a member with this email: member `+m.ID+" is pending", err.Error())
			require.Equal(t, m.ID, dup.Member.ID)
			require.Equal(t, clerkinvite.Ref{TenantID: "acme", Email: "ada@example.com"}, dup.Ref)
		}
		require.Zero(t, b.clerk.RequestCount())

		// Accepted: the webhook makes the pending id the real one.
		w, err := b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		changed := b.event(t, w)
		require.Len(t, changed, 1)
		m = b.get(t, "ada@example.com")
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Regexp(t, "^user_", m.ClerkUserID)
		require.Empty(t, b.event(t, w), "a replay changes nothing")
	})
}

func TestInviteAnExistingUser(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		u := b.clerk.AddVerifiedUser("Grace@Example.com")
		m := b.mustInvite(t, "grace@example.com")
		require.Equal(t, clerkinvite.StatusActive, m.Status)
		require.Equal(t, u.ID, m.ClerkUserID)
		require.Zero(t, b.clerk.Emails())
		require.Empty(t, b.clerk.Invitations("grace@example.com"))

		_, err := b.invite(t, "grace@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, u.ID, dup.Member.ClerkUserID)

		// Another tenant has a row of its own.
		m, err = b.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "globex", Email: "grace@example.com"})
		require.NoError(t, err)
		require.Equal(t, u.ID, m.ClerkUserID)
	})
}

func TestInviteCarriesItsParameters(t *testing.T) {
	t.Parallel()
	each(t, options{configure: func(c *clerkinvite.Config) { c.RedirectURL = "https://app.example.com/welcome" }}, func(t *testing.T, b *bundle) {
		m, err := b.Invite(t.Context(), clerkinvite.InviteParams{
			TenantID: "acme", Email: "ada@example.com", Role: "editor", InvitedBy: "user_boss", ExpiresInDays: 7,
			SkipEmail: true, PublicMetadata: map[string]any{"plan": "pro"}, Data: []byte(`{"seat": 4}`),
		})
		require.NoError(t, err)
		require.Equal(t, "editor", m.Role)
		require.Equal(t, "user_boss", m.InvitedBy)
		require.JSONEq(t, `{"seat":4}`, string(m.Data))
		require.Equal(t, b.clock.Now().AddDate(0, 0, 7), m.ExpiresAt.UTC())
		require.Zero(t, b.clerk.Emails(), "SkipEmail")
		require.Equal(t, m.URL, b.get(t, "ada@example.com").URL, "stored for the host that mails it")
		inv := b.clerk.Invitations("ada@example.com")[0]
		require.JSONEq(t, `{"plan":"pro","clerkinvite":{"id":"`+m.ID+`","send":1}}`, string(inv.PublicMetadata))

		w, err := b.clerk.Accept("ada@example.com")
		require.NoError(t, err)
		b.event(t, w)
		require.Empty(t, b.get(t, "ada@example.com").URL, "forgotten when it is of no use any more")
	})
}

func TestSecondAddressOfAMember(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
			{Address: "work@example.com", Verified: true}, {Address: "home@example.com", Verified: true},
		}})
		first := b.mustInvite(t, "home@example.com")
		_, err := b.invite(t, "work@example.com")
		var dup *clerkinvite.DuplicateEmailError
		require.ErrorAs(t, err, &dup)
		require.Equal(t, first.ID, dup.Member.ID, "the member that is there")
		require.Equal(t, "work@example.com", dup.Ref.Email)
		m := b.get(t, "work@example.com")
		require.Equal(t, clerkinvite.StatusRemoved, m.Status)
		require.Equal(t, clerkinvite.ReasonSecondAddress, m.Reason)
		require.Zero(t, b.clerk.Emails())
	})
}

func TestBannedUserIsRefused(t *testing.T) {
	t.Parallel()
	each(t, options{}, func(t *testing.T, b *bundle) {
		b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: "eve@example.com", Verified: true}}})
		_, err := b.invite(t, "eve@example.com")
		var refused *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, clerkinvite.Refused, refused.Outcome)
		status, _ := clerkinvite.HTTPError(err)
		require.Equal(t, 422, status)
		m := b.get(t, "eve@example.com")
		require.Equal(t, clerkinvite.StatusFailed, m.Status)
		require.Equal(t, clerkinvite.ReasonUserBanned, m.Reason)
		require.Zero(t, b.clerk.Emails())
	})
}

func TestUnverifiedHolderNeitherLinksNorBlocks(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, fresh func(*testing.T, options) *bundle) {
		for _, behavior := range behaviors() {
			t.Run(behavior.Name, func(t *testing.T) {
				t.Parallel()
				b := fresh(t, options{})
				b.clerk.SetBehavior(behavior.Behavior)
				b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: "victim@example.com"}}})
				m, err := b.invite(t, "victim@example.com")
				for range 5 { // where Clerk shows its own writes late, a later attempt does it
					if err == nil {
						break
					}
					b.clerk.Settle()
					b.clock.Advance(2 * time.Hour)
					m, err = b.invite(t, "victim@example.com")
				}
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusPending, m.Status)
				require.Equal(t, 1, b.clerk.EmailsTo("victim@example.com"))
			})
		}
	})
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	full := errors.New("no seat left")
	each(t, options{configure: func(c *clerkinvite.Config) {
		c.Authorize = func(_ context.Context, p *clerkinvite.InviteParams) error {
			switch p.Email {
			case "full@example.com":
				return full
			case "bad@example.com":
				p.RedirectURL = "javascript:alert(1)"
			}
			p.Role = "viewer"
			return nil
		}
	}}, func(t *testing.T, b *bundle) {
		_, err := b.invite(t, "Full@example.com")
		require.Equal(t, full, err, "as it is")
		_, err = b.invite(t, "bad@example.com")
		var invalid *clerkinvite.InvalidParamsError
		require.ErrorAs(t, err, &invalid)
		require.Zero(t, b.clerk.RequestCount())
		_, err = b.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "full@example.com"})
		require.ErrorIs(t, err, clerkinvite.ErrNotFound)
		require.Equal(t, "viewer", b.mustInvite(t, "ok@example.com").Role)
	})
}
