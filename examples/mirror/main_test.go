package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestMirrorOutput(t *testing.T) {
	t.Parallel()
	const uuidTenant = "7d9f1e52-0c4b-4f0a-9a55-2f6b1c0e8d31"
	for name, test := range map[string]struct{ tables, tenant string }{
		"text": {hostTables, "acme"},
		"uuid and citext": {"CREATE EXTENSION citext;" + strings.NewReplacer("tenant_id     text", "tenant_id     uuid", "email         text", "email         citext").
			Replace(hostTables), uuidTenant},
		"varchar": {strings.ReplaceAll(hostTables, "text NOT NULL", "varchar(64) NOT NULL"), "acme"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			require.NoError(t, run(t.Context(), pgtest.New(t).Pool(t), &out, test.tables, test.tenant))
			expected, err := os.ReadFile("expected.txt")
			require.NoError(t, err)
			require.Equal(t, string(expected), out.String())
		})
	}
}

// The members come from the rows, so creating the mirror writes none of them.
func TestMirrorAdoptsFirst(t *testing.T) {
	t.Parallel()
	clerk, pool := clerkinvitetest.NewClerk(), pgtest.New(t).Pool(t)
	require.NoError(t, oldRows(t.Context(), pool, clerk, hostTables, "acme"))
	const versions = `SELECT array_agg(xmin::text || a ORDER BY a.id)::text FROM admin_user a`
	var before, after string
	require.NoError(t, pool.QueryRow(t.Context(), versions).Scan(&before))
	h, err := newHost(t.Context(), pool, clerk, "acme", nil)
	require.NoError(t, err)
	require.NoError(t, pool.QueryRow(t.Context(), versions).Scan(&after))
	require.Equal(t, before, after)
	n, err := h.differences(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
}

// atEveryCommit makes PostgreSQL reject commits with a difference.
func atEveryCommit(t *testing.T) string {
	t.Helper()
	differences, err := mirror.Differences()
	require.NoError(t, err)
	return `
CREATE FUNCTION compare() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF EXISTS (` + differences + `) THEN RAISE EXCEPTION 'admin_user differs from the members'; END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER compare AFTER INSERT OR UPDATE OR DELETE ON clerkinvite_member
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION compare();
CREATE CONSTRAINT TRIGGER compare AFTER INSERT OR UPDATE OR DELETE ON admin_user
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION compare();`
}

// bundle is a host with a test clock.
type bundle struct {
	*testing.T
	*host

	hooks *httptest.Server // for Clerk's webhooks
	clock *clerkinvitetest.Clock
}

func setup(t *testing.T) *bundle {
	t.Helper()
	clock := clerkinvitetest.NewClock(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC))
	clerk, pool := clerkinvitetest.NewClerk(), pgtest.New(t).Pool(t)
	clerk.SetNow(clock.Now)
	_, err := pool.Exec(t.Context(), hostTables)
	require.NoError(t, err)
	h, err := newHost(t.Context(), pool, clerk, "acme", clock.Now)
	require.NoError(t, err)
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}, Now: clock.Now})
	require.NoError(t, err)
	b := &bundle{t, h, httptest.NewServer(h.invites.WebhookHandler(verifier)), clock}
	t.Cleanup(b.hooks.Close)
	return b
}

func (b *bundle) exec(sql string) {
	b.Helper()
	_, err := b.pool.Exec(b.Context(), sql)
	require.NoError(b, err)
}

// webhook delivers a webhook and returns the status of the response.
func (b *bundle) deliver(w clerkinvitetest.Webhook) int {
	b.Helper()
	w.At = b.clock.Now()
	resp, err := b.hooks.Client().Do(w.Request(clerkinvitetest.WebhookSecret, b.hooks.URL))
	require.NoError(b, err)
	require.NoError(b, resp.Body.Close())
	return resp.StatusCode
}

// accept accepts an invitation, and returns the status of the webhook's response.
func (b *bundle) accept(name string) int {
	b.Helper()
	w, err := b.clerk.Accept(b.ref(name).Email)
	require.NoError(b, err)
	return b.deliver(w)
}

// wantStatus requires a member's status, and that admin_user is equal.
func (b *bundle) wantStatus(name string, want clerkinvite.Status) {
	b.Helper()
	m, err := b.invites.Get(b.Context(), b.ref(name))
	require.NoError(b, err)
	require.Equal(b, want, m.Status)
	b.wantSame()
}

// wantSame requires that admin_user is equal to the members.
func (b *bundle) wantSame() {
	b.Helper()
	n, err := b.differences(b.Context())
	require.NoError(b, err)
	require.Zero(b, n)
}

// adminID returns the ID of a row of admin_user.
func (b *bundle) adminID(name string) (id string) {
	b.Helper()
	require.NoError(b, b.pool.QueryRow(b.Context(), `SELECT id::text FROM admin_user WHERE (tenant_id, email) = ('acme', $1)`, b.ref(name).Email).Scan(&id))
	return id
}

// All state changes of a member, compared at every commit and after every step.
func TestMirrorFollows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(atEveryCommit(t))

	_, err := b.invites.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: b.ref("ada").Email})
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusReserved)
	_, err = b.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusPending)
	id := b.adminID("ada")

	b.clock.Advance(time.Hour)
	resent, err := b.invites.Resend(t.Context(), b.ref("ada"))
	require.NoError(t, err)
	require.Equal(t, 2, resent.Sent)
	b.wantStatus("ada", clerkinvite.StatusPending)
	_, err = b.invites.Revoke(t.Context(), b.ref("ada"))
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusRevoked)
	require.NoError(t, b.invite(b.Context(), "ada"))
	b.wantStatus("ada", clerkinvite.StatusPending)
	require.Equal(t, 204, b.accept("ada"))
	b.wantStatus("ada", clerkinvite.StatusActive)
	_, err = b.invites.Remove(t.Context(), b.ref("ada"))
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusRemoved)
	require.NoError(t, b.invite(b.Context(), "ada"))
	b.wantStatus("ada", clerkinvite.StatusActive)
	require.Equal(t, id, b.adminID("ada"), "references to ada remain")

	require.NoError(t, b.invites.Purge(t.Context(), b.ref("ada")))
	_, err = b.invites.Get(t.Context(), b.ref("ada"))
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	b.wantSame()

	// Many members: some linked, one refused, and one with an expired invitation.
	var many []clerkinvite.InviteParams
	for i := range 30 {
		many = append(many, clerkinvite.InviteParams{TenantID: fmt.Sprint("tenant", i%2), Email: fmt.Sprintf("p%d@example.com", i)})
		if i%3 == 0 {
			b.clerk.AddVerifiedUser(many[i].Email)
		}
	}
	b.clerk.AddUser(clerkinvitetest.UserSpec{Banned: true, Emails: []clerkinvitetest.EmailSpec{{Address: many[1].Email, Verified: true}}})
	_, err = b.invites.InviteMany(t.Context(), many, nil)
	require.NoError(t, err)
	b.wantSame()
	require.NoError(t, b.invite(b.Context(), "grace"))
	b.clock.Advance(31 * 24 * time.Hour)
	require.NoError(t, b.invite(b.Context(), "grace"))
	b.wantStatus("grace", clerkinvite.StatusPending)
}

// A user with two addresses is one admin.
func TestMirrorSecondAddress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(atEveryCommit(t))
	require.NoError(t, b.invite(b.Context(), "ada"))
	require.NoError(t, b.invite(b.Context(), "lovelace"))
	user := b.clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{
		{Address: b.ref("ada").Email, Verified: true}, {Address: b.ref("lovelace").Email, Verified: true},
	}})
	_, err := b.invites.ResolveUser(t.Context(), user.ID)
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusActive)
	b.wantStatus("lovelace", clerkinvite.StatusRemoved)
}

// Concurrent random calls: no commit has a difference.
func TestMirrorUnderLoad(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(atEveryCommit(t))
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for i := range 40 {
				name := fmt.Sprintf("p%d", (i*7+worker)%10)
				var err error
				switch (i + worker) % 5 {
				case 0, 1:
					err = b.invite(b.Context(), name)
				case 2:
					_, err = b.invites.Remove(b.Context(), b.ref(name))
				case 3:
					_, err = b.invites.Revoke(b.Context(), b.ref(name))
				case 4:
					err = b.invites.Purge(b.Context(), b.ref(name))
				}
				var pg *pgconn.PgError
				assert.NotErrorAs(t, err, &pg)
			}
		})
	}
	wg.Wait()
	b.wantSame()
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return fmt.Sprint(err)
}

// If the host's table rejects a row, the member is unchanged. Nothing is lost or sent twice:
// delivery continues when the table accepts the row.
func TestMirrorRejectsInvitation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`ALTER TABLE admin_user ADD CONSTRAINT admin_user_email_check CHECK (email <> 'ada@example.com')`)
	require.Equal(t, "23514", code(b.invite(b.Context(), "ada")))
	b.wantStatus("ada", clerkinvite.StatusReserved)
	require.Equal(t, 1, b.clerk.EmailsTo(b.ref("ada").Email))

	b.exec(`ALTER TABLE admin_user DROP CONSTRAINT admin_user_email_check`)
	b.clock.Advance(time.Hour)
	_, err := b.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.wantStatus("ada", clerkinvite.StatusPending)
	require.Equal(t, 1, b.clerk.EmailsTo(b.ref("ada").Email), "the earlier invitation is adopted")
}

// A 23505 from the host's table is returned, and not treated as a second address.
func TestMirrorRejectsUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := b.clerk.AddVerifiedUser(b.ref("grace").Email)
	b.exec(`INSERT INTO admin_user (tenant_id, email, clerk_user_id) VALUES ('acme', 'old@example.com', '` + user.ID + `')`)
	err := b.invite(b.Context(), "grace")
	require.True(t, clerkinvite.IsUniqueViolation(err, "admin_user_clerk_user_id_key"), "%v", err)
	m, err := b.invites.Get(t.Context(), b.ref("grace"))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusReserved, m.Status)

	b.exec(`DELETE FROM admin_user WHERE email = 'old@example.com'`)
	b.clock.Advance(time.Hour)
	_, err = b.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b.wantStatus("grace", clerkinvite.StatusActive)
	require.Zero(t, b.clerk.Emails())
}

// While the table rejects the row, the webhook fails, so that Svix retries it.
func TestMirrorRejectsAcceptance(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.invite(b.Context(), "ada"))
	b.exec(`ALTER TABLE admin_user ADD CONSTRAINT admin_user_pending_check CHECK (clerk_user_id NOT LIKE 'user%')`)
	w, err := b.clerk.Accept(b.ref("ada").Email)
	require.NoError(t, err)
	require.Equal(t, 500, b.deliver(w))
	b.wantStatus("ada", clerkinvite.StatusPending)
	b.exec(`ALTER TABLE admin_user DROP CONSTRAINT admin_user_pending_check`)
	require.Equal(t, 204, b.deliver(w))
	b.wantStatus("ada", clerkinvite.StatusActive)
}

// A reference to an admin prevents erasing the row, and so the member.
func TestMirrorRejectsPurge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.clerk.AddVerifiedUser(b.ref("grace").Email)
	require.NoError(t, b.invite(b.Context(), "grace"))
	b.exec(`INSERT INTO document SELECT 'compilers', id FROM admin_user`)
	require.Equal(t, "23503", code(b.invites.Purge(t.Context(), b.ref("grace"))))
	b.wantStatus("grace", clerkinvite.StatusActive)
	_, err := b.invites.Remove(t.Context(), b.ref("grace"))
	require.NoError(t, err, "a removed member keeps the row")
	b.wantStatus("grace", clerkinvite.StatusRemoved)
	b.exec(`DELETE FROM document`)
	require.NoError(t, b.invites.Purge(t.Context(), b.ref("grace")))
	b.wantSame()
}

// A rejected member does not stop the other members of a batch.
func TestMirrorRejectsOneOfMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`ALTER TABLE admin_user ADD CONSTRAINT admin_user_email_check CHECK (email <> 'p3@example.com')`)
	var many []clerkinvite.InviteParams
	for i := range 12 {
		many = append(many, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%d@example.com", i)})
	}
	results, err := b.invites.InviteMany(t.Context(), many, nil)
	require.NoError(t, err)
	for i, r := range results {
		if i == 3 {
			require.Equal(t, "23514", code(r.Err))
			require.Equal(t, clerkinvite.StatusReserved, r.Member.Status)
			continue
		}
		require.NoError(t, r.Err)
	}
	b.wantSame()
	b.exec(`ALTER TABLE admin_user DROP CONSTRAINT admin_user_email_check`)
	b.clock.Advance(time.Hour)
	_, err = b.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	for i := range many {
		b.wantStatus(fmt.Sprint("p", i), clerkinvite.StatusPending)
	}
	require.Equal(t, len(many), b.clerk.Emails())
}

// In the host's transaction, admin_user is committed or rolled back with the members.
func TestMirrorInTx(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(atEveryCommit(t))
	require.NoError(t, b.invite(b.Context(), "ada"))
	b.clock.Advance(31 * 24 * time.Hour) // the invitation has expired, so ada can be invited again
	store := clerkinvite.NewPgxStore(b.pool, &clerkinvite.PgxOptions{Now: b.clock.Now})
	for _, commit := range []bool{false, true} {
		tx, err := b.pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = b.invites.InTx(store.WithTx(tx)).Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: b.ref("ada").Email})
		require.NoError(t, err)
		var left bool
		require.NoError(t, tx.QueryRow(t.Context(), `SELECT deleted_at IS NOT NULL FROM admin_user`).Scan(&left))
		require.True(t, left)
		if commit {
			require.NoError(t, tx.Commit(t.Context()))
			b.wantStatus("ada", clerkinvite.StatusReserved)
			continue
		}
		require.NoError(t, tx.Rollback(t.Context()))
		b.wantStatus("ada", clerkinvite.StatusPending)
	}
}
