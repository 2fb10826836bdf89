package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
)

func TestAdopt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	grace, open := w.clerk.AddVerifiedUser("grace@example.com"), w.clerk.CreateForeign("ada@example.com", nil)
	name := w.file("id;email;clerk_user_id;role;created_at\n" +
		"1; Grace@Example.com;" + grace.ID + ";admin;2026-01-02 03:04:05.678+00\n" +
		"2;ada@example.com;" + clerkinvite.PendingID(open.ID) + ";member;2026-01-03\n" +
		"3;uma@example.com;" + grace.ID + ";;\n" +
		"4;ada@example.com;user_other;;\n" +
		"5;joan@example.com;;;\n" +
		"6;mary@example.com;user_3;;yesterday\n" +
		"7;not-an-address;user_4;;\n")
	left := t.TempDir() + "/left.csv"
	args := []string{"adopt", name, "--tenant", "acme", "--map", "invited_at=created_at", "--errors", left, "--json"}

	w.vars["CLERK_SECRET_KEY"] = "" // adopt does not call Clerk
	r := w.run(append(args, "--dry-run")...)
	require.Equal(t, exitSome, r.code, r.stderr)
	dry := decode[adoptReport](t, r)
	require.NoFileExists(t, left)
	require.Empty(t, decode[membersDocument](t, w.run("list", "acme", "--json")).Members)
	for run := range 2 {
		r = w.run(args...)
		require.Equal(t, exitSome, r.code, r.stderr)
		report := decode[adoptReport](t, r)
		require.Equal(t, []any{7, 2 - 2*run, 2 * run, []string{"id"}}, []any{report.Lines, report.Adopted, report.Existing, report.Ignored})
		require.Len(t, report.Problems, 5)
		for i, want := range []struct {
			line   int
			what   outcome
			reason string
		}{
			{4, duplicate, "another member of this tenant has this Clerk user or invitation"}, {5, duplicate, "already has this person as a member"},
			{6, invalid, "clerk_user_id must be"}, {7, invalid, "invited_at must be"}, {8, invalid, "email must be"},
		} {
			require.Equal(t, want.line, report.Problems[i].Line)
			require.Equal(t, want.what, report.Problems[i].Outcome)
			require.Contains(t, report.Problems[i].Reason, want.reason)
		}
		require.Len(t, dry.Problems, len(report.Problems))
		require.Equal(t, []int{2, 0}, []int{dry.Adopted, dry.Existing})
	}
	require.Zero(t, w.clerk.RequestCount())
	member := w.member("grace@example.com")
	require.Equal(t, []any{clerkinvite.StatusActive, grace.ID, "admin"}, []any{member.Status, member.ClerkUserID, member.Role})
	require.True(t, member.ReservedAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC)), member.ReservedAt)
	require.Equal(t, open.ID, w.member("ada@example.com").InvitationID)

	// Another run with a line that is now correct.
	text, err := os.ReadFile(left)
	require.NoError(t, err)
	require.Contains(t, string(text), "clerk_user_id must be")
	r = w.run("adopt", w.file("tenant,email,clerk_user_id\nacme,joan@example.com,user_2\n"))
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "1 line: 1 adopted, 0 existing, 0 not adopted\n")

	// Two lines with the same person. The first one is adopted, on each run.
	name = w.file("tenant,email,clerk_user_id,role\nacme,same@example.com,user_9,admin\nacme,Same@example.com,user_9,viewer\n")
	for _, counts := range []string{"1 adopted, 0 existing", "0 adopted, 1 existing"} {
		r = w.run("adopt", name)
		require.Equal(t, exitSome, r.code, r.stderr)
		require.Contains(t, r.stdout, "2 lines: "+counts+", 1 not adopted\n")
		require.Equal(t, "admin", w.member("same@example.com").Role)
	}

	r = w.run("adopt", w.file("tenant,email\nacme,joan@example.com\n"))
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.stderr, "--map clerk_user_id=")
}

// Without the library's tables, adopt says so in one line, and not once per line of the file.
func TestAdoptBeforeMigrate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name := w.file("tenant,email,clerk_user_id\nacme,ada@example.com,user_1\nacme,joan@example.com,user_2\n")
	for _, args := range [][]string{{"--dry-run"}, {}} {
		r := w.run(append([]string{"adopt", name, "--schema", "later"}, args...)...)
		require.Equal(t, exitUsage, r.code)
		require.Empty(t, r.stdout)
		require.Equal(t, "clerkinvite adopt: the library's tables do not exist; run \"clerkinvite migrate\" first, or set --schema to their schema; nothing was written\n", r.stderr)
	}
	require.Zero(t, w.run("migrate", "--schema", "later").code)
	for _, args := range [][]string{{"--dry-run"}, {}} {
		r := w.run(append([]string{"adopt", name, "--schema", "later"}, args...)...)
		require.Zero(t, r.code, r.stderr)
		require.Contains(t, r.stdout, "2 lines: 2 adopted")
	}
}

func TestRemovePurgeAndDeliver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.invite("ada@example.com")
	r := w.run("remove", "acme", "ada@example.com", "--json")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, clerkinvite.StatusRemoved, decode[memberDocument](t, r).Member.Status)
	require.Empty(t, w.clerk.OpenInvitations("ada@example.com"))
	require.Equal(t, exitRefused, w.run("remove", "acme", "unknown@example.com").code)

	w.invite("ada@example.com")
	r = w.run("purge", "acme", "Ada@example.com")
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, w.clerk.OpenInvitations("ada@example.com"))
	require.Equal(t, exitRefused, w.run("show", "acme", "ada@example.com").code)
	require.Equal(t, exitRefused, w.run("purge", "acme", "ada@example.com").code)

	_, err := w.service().ReserveMany(t.Context(), []clerkinvite.InviteParams{
		{TenantID: "acme", Email: "joan@example.com"}, {TenantID: "acme", Email: "mary@example.com"}, {TenantID: "globex", Email: "joan@example.com"},
	})
	require.NoError(t, err)
	require.Equal(t, deliverDocument{Claimed: 1, Invited: 1}, decode[deliverDocument](t, w.run("deliver", "--limit", "1", "--json")))
	require.Contains(t, w.run("deliver").stdout, "2 members: 2 invited")
	require.Equal(t, exitUsage, w.run("deliver", "--limit", "-1").code)
	w.clerk.SetSecretKey("sk_test_other")
	_, err = w.service().Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "late@example.com"})
	require.NoError(t, err)
	r = w.run("deliver", "--json")
	require.Equal(t, exitFailed, r.code)
	require.NotEmpty(t, decode[deliverDocument](t, r).Error)
}
