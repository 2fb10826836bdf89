package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestMigrateAndValidate(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	w := &world{t: t, vars: map[string]string{"DATABASE_URL": db.DSN}}
	r := w.run("validate", "--json")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, decode[errorDocument](t, r).Error, "does not exist")
	r = w.run("list", "acme")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "clerkinvite migrate")

	require.Zero(t, w.run("migrate", "--schema", "invitations").code)
	require.Zero(t, w.run("validate", "--schema", "invitations").code)
	require.Equal(t, exitFailed, w.run("validate").code, "the tables are in another schema")
	require.Zero(t, w.run("migrate").code)
	r = w.run("migrate", "--json") // again
	require.Zero(t, r.code)
	require.JSONEq(t, `{"ok": true}`, r.stdout)
	r = w.run("validate", "--json")
	require.Zero(t, r.code)
	require.JSONEq(t, `{"ok": true}`, r.stdout)
	require.Zero(t, w.run("list", "acme", "--schema", "invitations").code)

	_, err := db.Pool(t).Exec(t.Context(), "DROP TABLE clerkinvite_limit")
	require.NoError(t, err)
	r = w.run("migrate")
	require.Equal(t, exitFailed, r.code, "a dropped table is not recreated")
	require.Regexp(t, `recorded as done.*\n.*the table clerkinvite_limit does not exist`, r.stderr)

	w.vars["DATABASE_URL"] = "postgres://unknown@127.0.0.1:1/none?connect_timeout=2"
	require.Equal(t, exitFailed, w.run("validate").code)
}

type membersDocument struct {
	Members []clerkinvite.Member `json:"members"`
	Next    string               `json:"next"`
}

func TestListPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.run("list", "acme", "--json")
	require.Zero(t, r.code)
	require.Empty(t, decode[membersDocument](t, r).Members)
	require.NotNil(t, decode[membersDocument](t, r).Members, "an empty list, not null")

	w.clerk.AddVerifiedUser("grace@example.com")
	var people []clerkinvite.InviteParams
	for i := range 1200 {
		people = append(people, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%04d@example.com", i)})
	}
	_, err := w.service().ReserveMany(t.Context(), people)
	require.NoError(t, err)
	w.invite("grace@example.com")

	first := decode[membersDocument](t, w.run("list", "acme", "--json", "--limit", "2"))
	require.Len(t, first.Members, 2)
	second := decode[membersDocument](t, w.run("list", "acme", "--json", "--limit", "2", "--cursor", first.Next))
	require.Equal(t, "p0002@example.com", second.Members[0].Email)
	all := decode[membersDocument](t, w.run("list", "acme", "--json", "--all"))
	require.Len(t, all.Members, 1201)
	require.Empty(t, all.Next)
	active := decode[membersDocument](t, w.run("list", "acme", "--json", "--status", "active, failed"))
	require.Len(t, active.Members, 1)
	require.Equal(t, clerkinvite.StatusActive, active.Members[0].Status)

	r = w.run("list", "acme", "--email", "grace")
	require.Regexp(t, `(?m)^EMAIL +STATUS .*\ngrace@example.com +active `, r.stdout)
	require.Contains(t, r.stdout, "1 member\n")
	require.Contains(t, w.run("list", "acme", "--limit", "2").stdout, "--cursor "+first.Next)
	require.Contains(t, w.run("list", "acme", "--all").stdout, "1201 members\n")

	require.Equal(t, exitUsage, w.run("list", "acme", "--status", "lost").code)
	require.Equal(t, exitUsage, w.run("list", "acme", "--cursor", "x").code)
}

type memberDocument struct {
	Member       clerkinvite.Member         `json:"member"`
	Organization clerkinvite.Organization   `json:"organization"`
	History      []clerkinvite.HistoryEntry `json:"history"`
}

func TestShowResendAndRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	r := w.run("show", "acme", "Ada@Example.com", "--json")
	require.Zero(t, r.code)
	shown := decode[memberDocument](t, r)
	require.Equal(t, "ada@example.com", shown.Member.Email)
	require.Len(t, shown.History, 2)
	r = w.run("show", "acme", "ada@example.com")
	require.Regexp(t, `status +pending`, r.stdout)
	require.Contains(t, r.stdout, "1 requested, 1 completed, 1 attempt for the last\n")
	require.Regexp(t, `reserved +pending +1 +pending_inv`, r.stdout)
	r = w.run("show", "acme", "unknown@example.com", "--json")
	require.Equal(t, exitRefused, r.code)
	require.Equal(t, "no such member", decode[errorDocument](t, r).Error)

	r = w.run("resend", "acme", "ada@example.com")
	require.Equal(t, exitRefused, r.code, "too early")
	require.Contains(t, r.stderr, "try again after")
	w.pass(2 * time.Minute)
	r = w.run("resend", "acme", "ada@example.com", "--json")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, 2, decode[memberDocument](t, r).Member.Sent)
	require.Equal(t, 2, w.clerk.EmailsTo("ada@example.com"))
	require.Len(t, w.clerk.OpenInvitations("ada@example.com"), 1)

	for range 2 { // the second time, the member is already revoked
		r = w.run("revoke", "acme", "ada@example.com")
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "ada@example.com in acme is revoked")
	}
	require.Empty(t, w.clerk.OpenInvitations("ada@example.com"))
	r = w.run("resend", "acme", "ada@example.com")
	require.Equal(t, exitRefused, r.code)
	require.Contains(t, r.stderr, "a member that is revoked cannot become pending")

	w.clerk.AddVerifiedUser("linked@example.com")
	w.invite("linked@example.com")
	require.Equal(t, "linked@example.com in acme is removed\n", w.run("remove", "acme", "linked@example.com").stdout)

	w.invite("grace@example.com")
	w.clerk.SetSecretKey("sk_test_another")
	r = w.run("revoke", "acme", "grace@example.com")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "clerk_key_invalid", "Clerk's code")
	require.Equal(t, clerkinvite.StatusPending, w.member("grace@example.com").Status)
}

// invite sends to people whom import skips: ended members.
func TestInvite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var created []byte // the body of the last request that created an invitation
	w.wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				created, _ = io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(created))
			}
			h.ServeHTTP(rw, r)
		})
	}
	r := w.run("invite", "acme", "Ada@Example.com", "--role", "admin", "--redirect-url", "https://app.example.com/welcome")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, string(created), `"redirect_url":"https://app.example.com/welcome"`)
	require.Equal(t, "ada@example.com in acme is pending: pending_"+w.member("ada@example.com").InvitationID+"\n", r.stdout)
	require.Equal(t, "admin", w.member("ada@example.com").Role)

	r = w.run("invite", "acme", "ada@example.com")
	require.Equal(t, exitRefused, r.code, "a duplicate")
	require.Contains(t, r.stderr, `tenant "acme" already has this person as a member: member `+w.member("ada@example.com").ID+" is pending")
	require.Equal(t, 1, w.clerk.EmailsTo("ada@example.com"))

	require.Zero(t, w.run("remove", "acme", "ada@example.com").code)
	m := decode[memberDocument](t, w.run("invite", "acme", "ada@example.com", "--json")).Member
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, "admin", m.Role, "as before")
	require.Contains(t, string(created), `"redirect_url":"https://app.example.com/welcome"`, "as before")
	require.Equal(t, 2, w.clerk.EmailsTo("ada@example.com"))
	require.Zero(t, w.run("revoke", "acme", "ada@example.com").code)
	require.Zero(t, w.run("invite", "acme", "ada@example.com", "--role", "member").code)
	require.Equal(t, "member", w.member("ada@example.com").Role)

	w.clerk.AddVerifiedUser("linked@example.com")
	require.Contains(t, w.run("invite", "acme", "linked@example.com").stdout, "linked@example.com in acme is active: user_")

	// Clerk may have the invitation of a reserved member, so its parameters must not change.
	_, err := w.service().Reserve(t.Context(), clerkinvite.InviteParams{
		TenantID: "acme", Email: "grace@example.com", Role: "admin", PublicMetadata: map[string]any{"plan": json.RawMessage(`{"z":1,"a":1e2}`)},
	})
	require.NoError(t, err)
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.Reset, When: clerkinvitetest.After})
	require.Equal(t, 1, decode[deliverDocument](t, w.run("deliver", "--json")).Postponed)
	w.pass(2 * time.Minute)
	require.Zero(t, w.run("invite", "acme", "grace@example.com").code)
	require.Equal(t, clerkinvite.StatusPending, w.member("grace@example.com").Status)
	require.Equal(t, "admin", w.member("grace@example.com").Role)
	require.Equal(t, 1, w.clerk.EmailsTo("grace@example.com"))

	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	require.Equal(t, exitRefused, w.run("invite", "acme", "mallory@example.com").code)
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.JSON500})
	r = w.run("invite", "acme", "joan@example.com")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, r.stderr, "the invitation is saved and will be retried")
	require.Equal(t, exitUsage, w.run("invite", "acme", "not-an-address").code)
}

func TestReconcileReportsAndRepairs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	w.invite("grace@example.com")
	_, err := w.clerk.Accept("ada@example.com")
	require.NoError(t, err)
	_, err = w.clerk.AcceptAs("grace@example.com", "private@example.com")
	require.NoError(t, err)

	r := w.run("reconcile", "--dry-run", "--json")
	require.Zero(t, r.code, r.stderr)
	d := decode[reconcileDocument](t, r)
	require.Equal(t, [4]int{2, 1, 0, 1}, [4]int{d.Members, d.Activated, d.Expired, len(d.AcceptedElsewhere)})
	require.True(t, d.DryRun)
	require.Equal(t, clerkinvite.StatusPending, w.member("ada@example.com").Status)

	r = w.run("reconcile")
	require.Zero(t, r.code)
	require.Regexp(t, `(?m)^1 +activated`, r.stdout)
	for _, word := range []string{"activated", "removed", "revoked", "unknown", "newer", "accepted elsewhere"} { // as in docs/runbook.md
		require.Regexp(t, `(?m)^\d+ +`+word+`: `, r.stdout)
	}
	require.Contains(t, r.stdout, "grace@example.com in acme")
	require.Equal(t, clerkinvite.StatusActive, w.member("ada@example.com").Status)

	first := decode[reconcileDocument](t, w.run("reconcile", "--json", "--limit", "1"))
	require.NotEmpty(t, first.Cursor)
	require.Empty(t, decode[reconcileDocument](t, w.run("reconcile", "--json", "--cursor", first.Cursor)).Cursor)

	for _, wrong := range [][]string{{"--limit", "-1"}, {"--cursor", "x"}} {
		r = w.run("reconcile", wrong[0], wrong[1])
		require.Equal(t, exitUsage, r.code)
		require.Empty(t, r.stdout, "no report")
	}

	help := w.run("reconcile", "--help").stdout
	for _, field := range reflect.VisibleFields(reflect.TypeFor[reconcileDocument]()) {
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		require.Contains(t, help, `"`+key+`"`)
	}

	w.clerk.SetSecretKey("sk_test_another")
	r = w.run("reconcile", "--json")
	require.Equal(t, exitFailed, r.code)
	require.Contains(t, decode[reconcileDocument](t, r).Error, "clerk_key_invalid")
}

// deliver says how many members wait for a later attempt, until when and why.
func TestDeliverReportsWaitingMembers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	require.NotContains(t, w.run("deliver").stdout, "due later")
	w.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.JSON500, Times: -1})
	_, err := w.service().Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"})
	require.Error(t, err)
	r := w.run("deliver")
	require.Zero(t, r.code, r.stderr)
	next := w.member("ada@example.com").NextAttemptAt
	require.Contains(t, r.stdout, "0 members: ")
	require.Contains(t, r.stdout, "1 member due later: the next attempt is at "+stamp(next))
	d := decode[deliverDocument](t, w.run("deliver", "--json"))
	require.Equal(t, 1, d.Waiting)
	require.WithinDuration(t, *next, *d.NextAttempt, time.Second)

	_, err = w.service().ReserveMany(t.Context(), testkit.People(maxWaiting-1, "p"))
	require.NoError(t, err)
	w.exec(`UPDATE clerkinvite_member SET next_attempt_at = '` + stamp(next) + `'`)
	require.Contains(t, w.run("deliver").stdout, "\nat least 1000 members due later: ")
	w.exec(`DELETE FROM clerkinvite_member WHERE email = 'ada@example.com'`)
	require.Contains(t, w.run("deliver").stdout, "\n999 members due later: ")
}

// The link of a pending member is all that link prints.
func TestLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.invite("ada@example.com")
	link, err := w.service().Link(t.Context(), m.Ref())
	require.NoError(t, err)
	require.Equal(t, result{stdout: link.Reveal() + "\n"}, w.run("link", "acme", "ada@example.com"))
	require.Equal(t, link.Reveal(), decode[map[string]string](t, w.run("link", "acme", "ada@example.com", "--json"))["link"])
	require.Zero(t, w.run("revoke", "acme", "ada@example.com").code)
	r := w.run("link", "acme", "ada@example.com")
	require.Equal(t, exitRefused, r.code)
	require.Empty(t, r.stdout)
}
