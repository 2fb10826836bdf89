package doccheck_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/doccheck"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// readPage returns a page of the documentation.
func readPage(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page) // #nosec G304 -- a page of this repository
	require.NoError(t, err)
	return string(text)
}

var (
	fencedBlock = regexp.MustCompile("(?m)^ *```(\\w*)\n((?s:.*?)\n) *```$")
	inlineCode  = regexp.MustCompile("`[^`\n]*`")
	pageLink    = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|href|srcset)="([^"]+)"`)
	pageHeading = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	headingLink = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// mustHave fails the test if the page does not have the text.
func mustHave(t *testing.T, page, text string) {
	t.Helper()
	if !strings.Contains(page, text) {
		t.Errorf("the page should have: %s", text) // without the text of the page
	}
}

// sqlBlocks returns the SQL blocks of a page.
func sqlBlocks(t *testing.T, page string) []string {
	t.Helper()
	var blocks []string
	for _, match := range fencedBlock.FindAllStringSubmatch(readPage(t, page), -1) {
		if match[1] == "sql" {
			blocks = append(blocks, strings.TrimSpace(match[2]))
		}
	}
	require.NotEmpty(t, blocks, page)
	return blocks
}

// anchors returns the names under which a page's headings can be linked to.
func anchors(text string) map[string]bool {
	names := make(map[string]bool)
	for _, match := range pageHeading.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1) {
		heading := headingLink.ReplaceAllString(match[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(heading))
		for n, base := 1, name; names[name]; n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		names[name] = true
	}
	return names
}

// pages returns all pages of the documentation.
func pages(t *testing.T) (found []string) {
	t.Helper()
	files, err := doccheck.Files(".")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, ".md") {
			found = append(found, file)
		}
	}
	for _, page := range []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "docs/runbook.md", "migrations/README.md"} {
		require.Contains(t, found, page)
	}
	return found
}

// Every relative link in the documentation leads to an existing file and heading.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		text := inlineCode.ReplaceAllString(fencedBlock.ReplaceAllString(readPage(t, page), ""), "")
		for _, match := range pageLink.FindAllStringSubmatch(text, -1) {
			link, err := url.Parse(match[1] + match[2])
			require.NoError(t, err, page)
			if link.IsAbs() {
				continue
			}
			file := page
			if link.Path != "" {
				file = filepath.Join(filepath.Dir(page), link.Path)
			}
			_, err = os.Stat(file)
			if assert.NoError(t, err, "%s links to %s", page, link) && link.Fragment != "" {
				assert.True(t, anchors(readPage(t, file))[link.Fragment], "%s links to %s: that heading does not exist", page, link)
			}
		}
	}
}

// rootFiles parses the files of the library itself.
func rootFiles(t *testing.T) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
	}
	return files
}

// stringOf returns the value of a string literal.
func stringOf(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// loggedMessages returns the messages that a file logs as a warning or as an error.
func loggedMessages(t *testing.T, file *ast.File) (messages []string) {
	t.Helper()
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		at := -1
		switch method.Sel.Name {
		case "WarnContext", "ErrorContext":
			at = 1
		case "Warn":
			at = 0
		case "Log", "LogAttrs":
			if level, ok := call.Args[1].(*ast.SelectorExpr); !ok || level.Sel.Name != "LevelInfo" && level.Sel.Name != "LevelDebug" { // or a variable
				at = 2
			}
		}
		if at < 0 {
			return true
		}
		message, ok := stringOf(call.Args[at])
		require.True(t, ok, "a message that is not a literal")
		messages = append(messages, message)
		return true
	})
	return messages
}

// The runbook has every message that the library logs as a warning or an error, and no other.
func TestRunbookHasEveryLogMessage(t *testing.T) {
	t.Parallel()
	_, table, found := strings.Cut(readPage(t, "docs/runbook.md"), "\n## Log messages\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	var documented, logged []string
	for _, cell := range regexp.MustCompile(`(?m)^\| [^|]* \| `).FindAllString(table, -1) {
		for _, message := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			documented = append(documented, message[1])
		}
	}
	for _, file := range rootFiles(t) {
		logged = append(logged, loggedMessages(t, file)...)
	}
	slices.Sort(logged)
	require.ElementsMatch(t, slices.Compact(logged), documented)
	require.Greater(t, len(documented), 10)
}

// The runbook has every error type, every sentinel, the text of every error that callers see only inside another, and every reason.
func TestRunbookHasEveryError(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/runbook.md")
	_, reasonTable, _ := strings.Cut(page, "\n### Reasons\n")
	reasonTable, _, _ = strings.Cut(reasonTable, "\n#")
	unseen := []string{"not reached"} // finish replaces it
	var types, sentinels, texts, reasons int
	for _, file := range rootFiles(t) {
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				if name := errorType(decl); name != "" {
					types++
					mustHave(t, page, "`*"+name+"`")
				}
			case *ast.GenDecl:
				for _, spec := range decl.Specs {
					value, ok := spec.(*ast.ValueSpec)
					if !ok {
						continue
					}
					for i, name := range value.Names {
						switch {
						case decl.Tok == token.CONST && strings.HasPrefix(name.Name, "Reason"):
							reason, _ := stringOf(value.Values[i])
							reasons++
							mustHave(t, reasonTable, "`"+reason+"`")
						case decl.Tok == token.VAR && strings.HasPrefix(name.Name, "Err"):
							sentinels++
							mustHave(t, page, "| `"+name.Name+"`")
						case decl.Tok == token.VAR && strings.HasPrefix(name.Name, "err") && i < len(value.Values):
							text := strings.TrimSuffix(strings.TrimPrefix(newErrorText(value.Values[i]), "clerkinvite: "), ": %w")
							if text != "" && !slices.Contains(unseen, text) {
								texts++
								mustHave(t, page, `"`+text+`"`)
							}
						}
					}
				}
			}
		}
	}
	require.Equal(t, []bool{true, true, true, true}, []bool{types >= 6, sentinels >= 5, texts >= 7, reasons >= 4})
}

// errorType returns the exported type whose Error method the function is.
func errorType(f *ast.FuncDecl) string {
	if f.Name.Name != "Error" || f.Recv == nil {
		return ""
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if name, ok := of.(*ast.Ident); ok && name.IsExported() {
		return name.Name
	}
	return ""
}

// newErrorText returns the text that an expression passes to errors.New or fmt.Errorf.
func newErrorText(e ast.Expr) (text string) {
	ast.Inspect(e, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		if f, ok := call.Fun.(*ast.SelectorExpr); ok && (f.Sel.Name == "New" || f.Sel.Name == "Errorf") {
			text, _ = stringOf(call.Args[0])
		}
		return true
	})
	return text
}

// Each query in the runbook runs, only reads, and finds rows.
func TestRunbookSQL(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(t, err)
	_, err = svc.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	for _, email := range []string{"due@example.com", "overdue@example.com", "waits@example.com"} {
		_, err := svc.Reserve(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
	}
	_, err = store.SwapTime(t.Context(), "POST /invitations", time.Time{}, time.Now().Add(time.Hour))
	require.NoError(t, err)
	for _, sql := range []string{
		`UPDATE clerkinvite_member SET attempts = 7, reason = 'unavailable', next_attempt_at = now() - interval '1 hour' WHERE email = 'due@example.com'`,
		`UPDATE clerkinvite_member SET status = 'pending', sent = 1, invitation_id = 'inv_2abc', clerk_user_id = 'pending_inv_2abc', expires_at = now() - interval '1 hour'
			WHERE email = 'overdue@example.com'`,
		`UPDATE clerkinvite_member SET invited_at = '2026-06-01 00:00Z', settled_at = '2026-11-29 11:00Z' WHERE email = 'ada@example.com'`,
	} {
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	for _, sql := range sqlBlocks(t, "docs/runbook.md") {
		if sql == backupUpdate(t) || sql == limitDelete(t) || sql == actorErasure(t) {
			continue
		}
		require.NoError(t, pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			tag, err := tx.Exec(t.Context(), sql)
			require.Positive(t, tag.RowsAffected(), sql)
			return err
		}), sql)
	}
}

// The steps for a restored backup in docs/runbook.md work as described.
func TestRunbookRestoredBackup(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, ResendCooldown: -1})
	require.NoError(t, err)
	ref := func(name string) clerkinvite.Ref {
		return clerkinvite.Ref{TenantID: "acme", Email: name + "@example.com"}
	}
	must := func(m *clerkinvite.Member, err error) *clerkinvite.Member {
		t.Helper()
		require.NoError(t, err)
		return m
	}
	invite := func(name string) *clerkinvite.Member {
		t.Helper()
		return must(svc.Invite(t.Context(), testkit.Params("acme", ref(name).Email)))
	}
	get := func(name string) *clerkinvite.Member {
		t.Helper()
		return must(svc.Get(t.Context(), ref(name)))
	}
	state := func(name string) clerkinvite.Status { t.Helper(); return get(name).Status }
	exec := func(sql string) {
		t.Helper()
		_, err := pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	accept := func(name string) {
		t.Helper()
		_, err := clerk.Accept(ref(name).Email)
		require.NoError(t, err)
	}
	deliver := func() {
		t.Helper()
		_, err := svc.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	// Resolve the user, as a webhook or a sign-in does.
	signIn := func(name string) []*clerkinvite.Member {
		t.Helper()
		users, err := clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{ref(name).Email}})
		require.NoError(t, err)
		require.Len(t, users, 1)
		changed, err := svc.ResolveUser(t.Context(), users[0].ID)
		require.NoError(t, err)
		return changed
	}
	reconcile := func(dry bool) []int {
		t.Helper()
		r, err := svc.Reconcile(t.Context(), &clerkinvite.ReconcileOptions{DryRun: dry})
		require.NoError(t, err)
		return []int{r.Unknown, r.Newer, r.Activated, r.Revoked, r.Removed, r.LeftOver}
	}

	// Before the backup.
	clerk.AddVerifiedUser("removed@example.com")
	clerk.AddVerifiedUser("deleted@example.com")
	for _, name := range []string{"resent", "twice", "often", "cut", "joined", "revoked", "account", "left", "removed", "deleted", "again", "back"} {
		invite(name)
	}
	must(svc.Revoke(t.Context(), ref("again")))
	must(svc.Revoke(t.Context(), ref("back")))
	for _, name := range []string{"reserved", "accepted", "withdrawn", "late", "erased", "gone"} {
		must(svc.Reserve(t.Context(), testkit.Params("acme", ref(name).Email)))
	}
	// Move the times an hour back, so that no member has just joined.
	exec(`UPDATE clerkinvite_member SET settled_at = settled_at - interval '1 hour' WHERE settled_at IS NOT NULL`)
	exec(`CREATE TABLE backup AS TABLE clerkinvite_member; CREATE TABLE backup_history AS TABLE clerkinvite_history`)
	restore := func() {
		exec(`DELETE FROM clerkinvite_member`)
		exec(`INSERT INTO clerkinvite_member SELECT * FROM backup; INSERT INTO clerkinvite_history SELECT * FROM backup_history`)
	}

	// After the backup.
	invite("new")
	for name, sends := range map[string]int{"resent": 1, "twice": 2, "cut": 1, "often": 6} {
		for range sends {
			must(svc.Resend(t.Context(), ref(name)))
		}
	}
	invite("again")
	invite("back")
	deliver()
	accept("back")
	signIn("back")
	for _, name := range []string{"joined", "accepted"} {
		accept(name)
	}
	for _, name := range []string{"revoked", "account", "withdrawn"} {
		must(svc.Revoke(t.Context(), ref(name)))
	}
	clerk.SignUp("account@example.com", true)
	for _, name := range []string{"left", "gone"} {
		accept(name)
		signIn(name)
		must(svc.Remove(t.Context(), ref(name)))
	}
	must(svc.Remove(t.Context(), ref("removed")))
	require.NoError(t, svc.Purge(t.Context(), ref("erased")))
	clerk.DeleteUser(get("deleted").ClerkUserID)
	clerk.ExpireNow(get("late").InvitationID)
	delivered, resent := get("reserved"), get("resent")
	newest := map[string]string{"twice": get("twice").InvitationID, "often": get("often").InvitationID, "again": get("again").InvitationID}

	restore()
	emails := clerk.Emails()
	// Step 3: the people in the list.
	exec(backupUpdate(t))
	require.Equal(t, []int{1, 5, 3, 1, 1, 0}, reconcile(true), "account and left would be in the tenant")
	for _, name := range []string{"account", "left", "removed", "gone"} {
		require.Equal(t, clerkinvite.StatusRemoved, must(svc.Remove(t.Context(), ref(name))).Status)
	}
	require.NoError(t, svc.Purge(t.Context(), ref("erased")))
	// Step 4.
	require.Equal(t, []int{1, 5, 1, 1, 1, 0}, reconcile(true))
	require.Equal(t, []int{1, 5, 1, 1, 1, 0}, reconcile(false))
	// Step 5.
	deliver()
	require.Equal(t, delivered.InvitationID, get("reserved").InvitationID, "taken over")
	require.Equal(t, clerkinvite.StatusActive, state("accepted"))
	require.Equal(t, clerkinvite.ReasonRevokedAtClerk, get("withdrawn").Reason)
	require.Equal(t, clerkinvite.StatusExpired, state("late"))
	for _, name := range []string{"account", "left", "gone"} {
		require.Empty(t, signIn(name))
		require.Equal(t, clerkinvite.StatusRemoved, state(name))
	}

	// Invitations that are newer than their rows.
	require.Equal(t, resent.InvitationID, must(svc.Resend(t.Context(), ref("resent"))).InvitationID, "taken over")
	var illegal *clerkinvite.TransitionError
	must(svc.Revoke(t.Context(), ref("cut")))
	reconcile(false)
	require.Len(t, clerk.OpenInvitations("cut@example.com"), 1, "the newer one stays open")
	accept("cut")
	require.Empty(t, signIn("cut"))
	_, err = svc.Resend(t.Context(), ref("again"))
	require.ErrorAs(t, err, &illegal)
	require.Equal(t, newest["again"], invite("again").InvitationID, "taken over")
	require.Empty(t, signIn("back"), "no member waits")
	require.Equal(t, clerkinvite.StatusActive, invite("back").Status)
	require.Equal(t, emails, clerk.Emails(), "no email so far")
	for _, name := range []string{"twice", "often"} {
		require.NotEqual(t, newest[name], must(svc.Resend(t.Context(), ref(name))).InvitationID)
		require.Len(t, clerk.OpenInvitations(ref(name).Email), 2, "the newer one stays open")
	}
	invite("new")
	require.Equal(t, emails+3, clerk.Emails())

	// Purge revokes newer invitations, too.
	restore()
	require.Len(t, clerk.OpenInvitations("twice@example.com"), 2)
	require.NoError(t, svc.Purge(t.Context(), ref("twice")))
	require.Empty(t, clerk.OpenInvitations("twice@example.com"))
	// Without the steps.
	emails = clerk.Emails()
	deliver()
	for _, name := range []string{"withdrawn", "late", "erased"} {
		require.Len(t, clerk.OpenInvitations(ref(name).Email), 1, "a new link for %s", name)
		require.Equal(t, 2, clerk.EmailsTo(ref(name).Email))
	}
	require.Equal(t, emails+3, clerk.Emails())
	require.Equal(t, clerkinvite.StatusActive, state("gone"), "back in the tenant")
	require.Equal(t, clerkinvite.StatusActive, state("removed"), "back in the tenant")
	_, err = svc.Revoke(t.Context(), ref("left"))
	require.ErrorAs(t, err, &illegal)
	require.Equal(t, clerkinvite.StatusActive, state("left"), "so use Remove and not Revoke")
	// The steps after that: step 3 ends access and links.
	for _, name := range []string{"gone", "removed", "left", "withdrawn"} {
		require.Equal(t, clerkinvite.StatusRemoved, must(svc.Remove(t.Context(), ref(name))).Status)
	}
	require.NoError(t, svc.Purge(t.Context(), ref("erased")))
	for _, name := range []string{"withdrawn", "erased"} {
		require.Empty(t, clerk.OpenInvitations(ref(name).Email))
	}
}

// backupUpdate returns the one statement of docs/runbook.md that updates rows.
func backupUpdate(t *testing.T) string {
	t.Helper()
	return runbookStatement(t, "UPDATE")
}

// limitDelete returns the one statement of docs/runbook.md that deletes rows.
func limitDelete(t *testing.T) string {
	t.Helper()
	return runbookStatement(t, "DELETE")
}

// sqlWith returns the block of docs/runbook.md that contains text.
func sqlWith(t *testing.T, text string) string {
	t.Helper()
	blocks := sqlBlocks(t, "docs/runbook.md")
	i := slices.IndexFunc(blocks, func(sql string) bool { return strings.Contains(sql, text) })
	require.GreaterOrEqual(t, i, 0, text)
	return blocks[i]
}

// actorErasure returns the one statement of docs/runbook.md that erases a user's ID from other members' rows.
func actorErasure(t *testing.T) string {
	t.Helper()
	return runbookStatement(t, "WITH")
}

func runbookStatement(t *testing.T, command string) (statement string) {
	t.Helper()
	for _, sql := range sqlBlocks(t, "docs/runbook.md") {
		if strings.HasPrefix(sql, command) {
			require.Empty(t, statement, "there is one")
			statement = sql
		}
	}
	require.NotEmpty(t, statement)
	return statement
}

// The step that erases a person's ID from other members' rows in docs/runbook.md works, also during an attempt.
func TestRunbookDeletingAPerson(t *testing.T) {
	t.Parallel()
	const admin = "user_2abc"
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Organization: testkit.Organization}, clerk, clerk, store)
	user := clerk.AddVerifiedUser("admin@example.com")
	clerk.JoinOrganization(testkit.Organization, user.ID, "org:admin")
	sql := strings.ReplaceAll(actorErasure(t), admin, user.ID)
	ctx := clerkinvite.WithActor(t.Context(), user.ID)
	invite := func(email string) {
		t.Helper()
		_, err := b.Invite(ctx, clerkinvite.InviteParams{
			TenantID: "acme", Email: email, InvitedBy: user.ID, Organization: &clerkinvite.Organization{ID: testkit.Organization, Inviter: user.ID},
		})
		require.NoError(t, err)
	}
	traces := func() int {
		return testkit.QueryOne[int](t, pool, `SELECT (SELECT count(*) FROM clerkinvite_member m WHERE m::text LIKE '%`+user.ID+`%')
			+ (SELECT count(*) FROM clerkinvite_history h WHERE h::text LIKE '%`+user.ID+`%')`)
	}
	invite("before@example.com")
	_, err := b.Invite(t.Context(), testkit.Params("acme", "other@example.com"))
	require.NoError(t, err)
	require.Positive(t, traces())
	var erased atomic.Int64
	clerk.OnCall(func(_ context.Context, call clerkinvitetest.Call, when clerkinvitetest.When) {
		if call == clerkinvitetest.CallOrganizationCreate && when == clerkinvitetest.After {
			tag, err := pool.Exec(t.Context(), sql)
			erased.Add(tag.RowsAffected())
			assert.NoError(t, err)
		}
	})
	invite("during@example.com")
	clerk.OnCall(nil)
	require.EqualValues(t, 2, erased.Load(), "and no row of other people")
	require.Zero(t, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_member WHERE invited_by IS NOT NULL OR params::text LIKE '%inviter%'`),
		"the attempt did not write the old values")
	_, err = pool.Exec(t.Context(), sql) // the attempt wrote its history entry with the actor
	require.NoError(t, err)
	require.Zero(t, traces())
	b.Clock.Advance(time.Hour)
	for _, name := range []string{"before", "during"} {
		m := b.Member(t, name+"@example.com")
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		require.Equal(t, 1, clerk.EmailsTo(m.Email))
		require.Equal(t, &clerkinvite.Organization{ID: testkit.Organization, Role: "org:member"}, m.Organization())
		_, err := b.Resend(t.Context(), m.Ref())
		require.NoError(t, err)
		require.Len(t, clerk.OpenInvitations(m.Email), 1)
	}
}

// The query for one person in docs/runbook.md also finds a row that the person has left under another address. The last admin
// of an organization can be removed once it is deleted.
func TestRunbookOnePerson(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Organization: testkit.Organization}, clerk, clerk, store)
	user := clerk.AddVerifiedUser("old@example.com")
	clerk.JoinOrganization(testkit.Organization, user.ID, "org:admin")
	b.MustInvite(t, "old@example.com")
	_, err := b.Remove(t.Context(), testkit.Acme("old@example.com"))
	require.ErrorIs(t, err, clerkinvite.ErrLastAdmin)
	clerk.DeleteOrganization(testkit.Organization)
	removed, err := b.Remove(t.Context(), testkit.Acme("old@example.com"))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusRemoved, removed.Status)

	sql := strings.ReplaceAll(sqlWith(t, "ada@example.com"), "user_2abc", user.ID)
	rows, err := pool.Query(t.Context(), "SELECT email FROM ("+strings.TrimSuffix(strings.Split(sql, "; --")[0], ";")+") person")
	require.NoError(t, err)
	emails, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"old@example.com"}, emails)
}

// docs/runbook.md has the texts that an admin or the command shows instead of an error's name.
func TestRunbookHasTexts(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/runbook.md")
	for _, err := range []error{
		clerkinvite.ErrLastAdmin, clerkinvite.ErrNoLink, errors.New("the member was modified concurrently"),
		&clerkinvite.TransitionError{From: "…", To: "…"},
	} {
		mustHave(t, page, `"`+err.Error()+`"`)
	}
	require.ErrorContains(t, clerkinvite.ErrConflict, "the member was modified concurrently")
	for status, err := range map[int]error{
		422: &clerkinvite.ClerkInvitationError{Outcome: clerkinvite.OutcomeRefused},
		500: errors.New("anything"),
		502: &clerkinvite.ClerkInvitationError{Outcome: clerkinvite.OutcomeFault},
	} {
		got, text := clerkinvite.HTTPError(err)
		require.Equal(t, status, got)
		mustHave(t, page, `"`+text+`"`)
	}
}

// What docs/runbook.md says about a person who joined under another address is right.
func TestRunbookJoinedUnderAnotherAddress(t *testing.T) {
	t.Parallel()
	for _, remedy := range []string{"invite the other address", "verify the invited address"} {
		t.Run(remedy, func(t *testing.T) {
			t.Parallel()
			b := testkit.NewMemory(t, testkit.Options{})
			m := b.MustInvite(t, "ada@example.com")
			_, err := b.Clerk.AcceptAs("ada@example.com", "private@example.com")
			require.NoError(t, err)
			require.Len(t, b.MustReconcile(t).AcceptedElsewhere, 1)
			active := "ada@example.com"
			if remedy == "invite the other address" {
				active = "private@example.com"
				require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, active).Status)
				m, err = b.Remove(t.Context(), m.Ref())
				require.NoError(t, err)
				require.Equal(t, clerkinvite.StatusRemoved, m.Status)
			} else {
				users, err := b.Clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{"private@example.com"}})
				require.NoError(t, err)
				b.Clerk.AddEmail(users[0].ID, clerkinvitetest.EmailSpec{Address: active, Verified: true})
			}
			require.Empty(t, b.MustReconcile(t).AcceptedElsewhere)
			require.Equal(t, clerkinvite.StatusActive, b.Member(t, active).Status)
			require.Equal(t, 1, b.Clerk.Emails())
		})
	}
}

// docs/runbook.md describes correctly how to lift a limit, for a process that only calls Invite and for one that delivers.
func TestRunbookLiftALimit(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	clerk := clerkinvitetest.NewClerk()
	interactive := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	background := testkit.New(t, testkit.Options{}, clerk, clerk, store)
	for _, call := range []clerkinvitetest.Call{clerkinvitetest.CallCreate, clerkinvitetest.CallCreateBulk} {
		clerk.Fail(clerkinvitetest.Fault{Call: call, Status: 429, Code: "too_many_requests", RetryAfter: time.Hour})
	}
	_, err := interactive.TryInvite(t, "ada@example.com")
	require.Error(t, err)
	_, err = background.Reserve(t.Context(), testkit.Params("acme", "bob@example.com"))
	require.NoError(t, err)
	_, err = background.Deliver(t.Context(), nil)
	require.NoError(t, err)
	_, err = interactive.TryInvite(t, "cy@example.com")
	require.Error(t, err)
	require.Equal(t, 2, interactive.CreateRequests())

	tag, err := pool.Exec(t.Context(), limitDelete(t))
	require.NoError(t, err)
	require.EqualValues(t, 2, tag.RowsAffected())
	interactive.MustInvite(t, "cy@example.com")
	_, err = background.Reserve(t.Context(), testkit.Params("acme", "dan@example.com"))
	require.NoError(t, err)
	report, err := background.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, &clerkinvite.DeliverReport{Claimed: 1, Invited: 1}, report)
	interactive.MustInvite(t, "ada@example.com")
}

// The step for an urgent invitation in docs/runbook.md works as described.
func TestRunbookUrgentInvitation(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, clerk, clerk, clerkinvitetest.NewMemoryStore())
	clerk.Fail(clerkinvitetest.RateLimited(time.Hour))
	for range 2 {
		_, err := b.TryInvite(t, "ada@example.com")
		_, limited := clerkinvite.RetryAfter(err)
		require.True(t, limited)
	}
	clerk.CreateForeign("ada@example.com", nil)
	webhook, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	b.Receive(t, webhook)
	require.Equal(t, clerkinvite.StatusActive, b.Member(t, "ada@example.com").Status)
	b.Clock.Advance(62 * time.Minute)
	report, err := b.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, report.Claimed)
	require.Zero(t, clerk.EmailsTo("ada@example.com"), "of the library")

	// Without an acceptance, the member gets the open invitation.
	clerk.Fail(clerkinvitetest.RateLimited(time.Hour))
	_, err = b.TryInvite(t, "bob@example.com")
	require.Error(t, err)
	b.Clock.Advance(time.Minute)
	open := clerk.CreateForeign("bob@example.com", nil)
	for range 2 {
		b.Clock.Advance(62 * time.Minute)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)
	}
	require.Equal(t, clerkinvite.StatusPending, b.Member(t, "bob@example.com").Status)
	require.Equal(t, open.ID, b.Member(t, "bob@example.com").InvitationID)
	require.Zero(t, clerk.EmailsTo("bob@example.com"), "of the library")
}

// The steps for moving to another Clerk instance, and for a key of another instance, in docs/runbook.md work as described.
func TestRunbookAnotherInstance(t *testing.T) {
	t.Parallel()
	store := clerkinvitetest.NewMemoryStore()
	old, next := clerkinvitetest.NewClerk(), clerkinvitetest.NewClerk()
	service := func(clerk *clerkinvitetest.Clerk) *clerkinvite.Service {
		svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
		require.NoError(t, err)
		return svc
	}
	before, after := service(old), service(next)
	next.AddVerifiedUser("other@example.com") // so that the IDs differ
	old.AddVerifiedUser("grace@example.com")
	moved := next.AddVerifiedUser("grace@example.com")
	invite := func(svc *clerkinvite.Service, email string) *clerkinvite.Member {
		m, err := svc.Invite(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
		return m
	}
	first := invite(before, "grace@example.com")
	pending := invite(before, "ada@example.com")

	_, err := before.Revoke(t.Context(), pending.Ref())
	require.NoError(t, err)
	_, err = after.Remove(t.Context(), first.Ref())
	require.NoError(t, err)
	second := invite(after, "grace@example.com")
	require.Equal(t, []any{clerkinvite.StatusActive, moved.ID, first.ID}, []any{second.Status, second.ClerkUserID, second.ID})
	require.Equal(t, clerkinvite.StatusPending, invite(after, "ada@example.com").Status)
	require.Equal(t, 1, next.Emails())
	require.Empty(t, old.OpenInvitations("ada@example.com"))

	// With another instance's key Reconcile changes nothing, even with few members.
	var clerkErr *clerkinvite.ClerkInvitationError
	wrong := clerkinvitetest.NewClerk()
	report, err := service(wrong).Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, report.Removed, "became active a moment ago")
	now := time.Now().Add(time.Hour)
	late, err := clerkinvite.New(clerkinvite.Config{API: wrong, Store: store, Now: func() time.Time { return now }})
	require.NoError(t, err)
	report, err = late.Reconcile(t.Context(), nil)
	require.ErrorAs(t, err, &clerkErr)
	require.Zero(t, report.Removed)
	_, err = late.Revoke(t.Context(), pending.Ref())
	require.ErrorAs(t, err, &clerkErr)

	// An expired invitation counts as revoked. If the clock is wrong, it stays open on its own instance.
	erased := invite(after, "erased@example.com")
	require.ErrorAs(t, late.Purge(t.Context(), erased.Ref()), &clerkErr)
	now = now.AddDate(0, 0, 31)
	require.NoError(t, late.Purge(t.Context(), erased.Ref()))
	_, err = late.Revoke(t.Context(), pending.Ref())
	require.NoError(t, err)
	report, err = after.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{1, 1}, []int{report.LeftOver, report.Unknown})
	require.Empty(t, next.OpenInvitations(pending.Email))
	require.Len(t, next.OpenInvitations(erased.Email), 1)
}

// The steps for a key of another instance in docs/runbook.md find and repair members of organizations.
func TestRunbookAnotherInstancesOrganizations(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	right, wrong := clerkinvitetest.NewClerk(), clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{Organization: testkit.Organization}, right, right, store)
	mistaken := testkit.New(t, testkit.Options{Clock: b.Clock, Organization: testkit.Organization}, wrong, wrong, store)
	wrong.DeleteOrganization(testkit.Organization)
	user := right.AddVerifiedUser("grace@example.com")
	right.JoinOrganization(testkit.Organization, user.ID, "org:admin")
	require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "grace@example.com").Status)
	b.MustInvite(t, "ada@example.com")
	b.MustInvite(t, "untouched@example.com")
	_, err := b.Revoke(t.Context(), b.MustInvite(t, "deliberate@example.com").Ref())
	require.NoError(t, err)

	b.Clock.Advance(time.Hour)
	from := b.Clock.Now()
	_, err = mistaken.Resend(t.Context(), testkit.Acme("ada@example.com"))
	require.Error(t, err)
	require.True(t, b.Member(t, "ada@example.com").Due())
	_, err = mistaken.TryInvite(t, "joan@example.com")
	require.Error(t, err)
	wrong.AddVerifiedUser("stranger@example.com") // so that the IDs differ
	wrong.AddVerifiedUser("linked@example.com")
	linked := testkit.New(t, testkit.Options{Clock: b.Clock}, wrong, wrong, store).MustInvite(t, "linked@example.com")
	require.Equal(t, clerkinvite.StatusActive, linked.Status)
	_, err = b.Revoke(t.Context(), b.MustInvite(t, "deliberate@example.com").Ref())
	require.NoError(t, err)
	b.Clock.Advance(time.Hour)
	until := b.Clock.Now()
	b.Clock.Advance(time.Hour)
	_, err = b.Deliver(t.Context(), nil) // the application runs with the right key
	require.NoError(t, err)
	b.MustReconcile(t)
	require.Equal(t, 2, b.RequireInvited(t, "ada@example.com", 2).Sent)

	list := sqlWith(t, "settled_at BETWEEN")
	list = strings.NewReplacer("2026-11-29 10:00 UTC", from.Format(time.RFC3339), "2026-11-29 12:00 UTC", until.Format(time.RFC3339)).Replace(list)
	affected := make(map[string]string)
	rows, err := pool.Query(t.Context(), "SELECT email, status || ' ' || reason FROM ("+strings.TrimSuffix(strings.TrimSpace(list), ";")+") list")
	require.NoError(t, err)
	var email, state string
	_, err = pgx.ForEachRow(rows, []any{&email, &state}, func() error { affected[email] = state; return nil })
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"joan@example.com": "failed resource_not_found", "linked@example.com": "removed user_deleted",
	}, affected)

	for email := range affected {
		b.MustInvite(t, email)
	}
	b.MustReconcile(t)
	for _, email := range []string{"ada@example.com", "joan@example.com", "linked@example.com", "untouched@example.com"} {
		m := b.Member(t, email)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		open := right.OpenInvitations(email)
		require.Len(t, open, 1)
		require.Equal(t, m.InvitationID, open[0].ID)
	}
}

// docs/runbook.md says correctly what ends a pending member with another instance's key, and that Reconcile repairs it.
func TestRunbookAnotherInstancesWithdrawals(t *testing.T) {
	t.Parallel()
	store := clerkinvitetest.NewMemoryStore()
	right, wrong := clerkinvitetest.NewClerk(), clerkinvitetest.NewClerk()
	b := testkit.New(t, testkit.Options{}, right, right, store)
	mistaken := testkit.New(t, testkit.Options{Clock: b.Clock}, wrong, wrong, store)
	wrong.AddVerifiedUser("stranger@example.com") // so that the IDs differ
	for _, name := range []string{"revoked", "removed", "purged"} {
		b.MustInvite(t, name+"@example.com")
	}
	b.Clock.Advance(time.Hour)
	end := func() (errs []error) {
		_, revoke := mistaken.Revoke(t.Context(), testkit.Acme("revoked@example.com"))
		_, remove := mistaken.Remove(t.Context(), testkit.Acme("removed@example.com"))
		return []error{revoke, remove, mistaken.Purge(t.Context(), testkit.Acme("purged@example.com"))}
	}
	for _, err := range end() {
		var clerkErr *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &clerkErr)
	}
	for range 4 { // the wrong instance's IDs begin again at the first
		wrong.CreateForeign("stranger@example.com", nil)
	}
	mistaken.MustInvite(t, "first@example.com")
	for _, err := range end() {
		require.NoError(t, err)
	}
	for _, name := range []string{"revoked", "removed", "purged"} {
		require.Len(t, right.OpenInvitations(name+"@example.com"), 1)
	}
	for name, status := range map[string]clerkinvite.Status{"revoked": clerkinvite.StatusRevoked, "removed": clerkinvite.StatusRemoved} {
		m := b.Member(t, name+"@example.com")
		require.Equal(t, status, m.Status)
		require.Empty(t, m.Reason)
	}

	report := b.MustReconcile(t)
	require.Equal(t, []int{2, 1}, []int{report.LeftOver, report.Unknown})
	require.Empty(t, right.OpenInvitations("revoked@example.com"))
	require.Empty(t, right.OpenInvitations("removed@example.com"))
	require.Len(t, right.OpenInvitations("purged@example.com"), 1)
}

// The numbers of requests for a tenant that leaves in docs/runbook.md are right.
func TestRunbookATenantLeaves(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	for _, purge := range []bool{true, false} {
		for _, email := range []string{"active@example.com", "pending@example.com"} {
			if email == "active@example.com" {
				clerk.AddVerifiedUser(email)
			}
			member, err := svc.Invite(t.Context(), testkit.Params("acme", email))
			require.NoError(t, err)
			clerk.ResetCounts()
			if purge {
				require.NoError(t, svc.Purge(t.Context(), member.Ref()))
			} else {
				_, err = svc.Remove(t.Context(), member.Ref())
				require.NoError(t, err)
			}
			want := 0
			if purge {
				want++
			}
			if member.Status == clerkinvite.StatusPending {
				want++
			}
			require.Equal(t, want, clerk.RequestCount(), email)
		}
	}
}

// If the organization of a tenant that leaves was deleted, Remove works for pending members while an active one is left. Otherwise
// it works after a colleague was invited without an organization, as docs/organizations.md says.
func TestRunbookATenantOfADeletedOrganizationLeaves(t *testing.T) {
	t.Parallel()
	clerk, store := clerkinvitetest.NewClerk(), clerkinvitetest.NewMemoryStore()
	b := testkit.New(t, testkit.Options{Organization: testkit.Organization}, clerk, clerk, store)
	b.Clerk.JoinOrganization(testkit.Organization, b.Clerk.AddVerifiedUser("active@example.com").ID, "org:admin")
	require.Equal(t, clerkinvite.StatusActive, b.MustInvite(t, "active@example.com").Status)
	b.MustInvite(t, "first@example.com")
	b.MustInvite(t, "last@example.com")
	b.Clock.Advance(time.Hour)
	b.Clerk.DeleteOrganization(testkit.Organization)
	remove := func(name string) error {
		_, err := b.Remove(t.Context(), testkit.Acme(name+"@example.com"))
		return err
	}
	require.NoError(t, remove("first"))
	require.NoError(t, remove("active"))
	var api *clerkinvite.APIError
	require.ErrorAs(t, remove("last"), &api)
	require.Equal(t, 404, api.StatusCode)
	testkit.New(t, testkit.Options{Clock: b.Clock}, clerk, clerk, store).MustInvite(t, "colleague@example.com")
	require.NoError(t, remove("last"))
}

// The statement in cmd/clerkinvite/README.md pauses an import, but not other invitations, and another import continues it.
func TestPauseAnImport(t *testing.T) {
	t.Parallel()
	match := regexp.MustCompile("`(UPDATE clerkinvite_member SET next_attempt_at [^`]*)`").FindStringSubmatch(readPage(t, "cmd/clerkinvite/README.md"))
	require.NotNil(t, match)
	store, pool := testkit.NewPgxStore(t)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: store})
	require.NoError(t, err)
	list := []clerkinvite.InviteParams{testkit.Params("acme", "ada@example.com"), testkit.Params("acme", "grace@example.com")}
	_, err = svc.ReserveMany(t.Context(), list)
	require.NoError(t, err)
	_, err = svc.ReserveMany(t.Context(), []clerkinvite.InviteParams{testkit.Params("globex", "ada@example.com")})
	require.NoError(t, err)
	_, err = svc.Reserve(t.Context(), testkit.Params("acme", "single@example.com"))
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), match[1])
	require.NoError(t, err)
	pass, err := svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, pass.Invited)
	results, err := svc.InviteMany(t.Context(), list, nil)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, clerkinvite.StatusPending, r.Member.Status)
	}
}

// The section on two databases on one Clerk instance in docs/runbook.md is right.
func TestRunbookOneInstanceForTwo(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	service := func() *clerkinvite.Service {
		svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
		require.NoError(t, err)
		return svc
	}
	production, staging := service(), service()
	for _, svc := range []*clerkinvite.Service{production, staging} {
		_, err := svc.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
		require.NoError(t, err)
	}
	require.Equal(t, 2, clerk.EmailsTo("ada@example.com"))
	report, err := staging.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []int{1, 0}, []int{report.Unknown, report.LeftOver})
	require.Len(t, clerk.OpenInvitations("ada@example.com"), 2)
	w, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	event, err := clerkinvite.ParseEvent(w.Payload)
	require.NoError(t, err)
	for _, svc := range []*clerkinvite.Service{production, staging} {
		changed, err := svc.HandleEvent(t.Context(), event)
		require.NoError(t, err)
		require.Len(t, changed, 1)
	}
}

// docs/runbook.md warns of a copy of production's database with production's key.
func TestRunbookCopyOfProduction(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	production, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	for _, status := range []clerkinvite.Status{clerkinvite.StatusPending, clerkinvite.StatusRevoked} {
		email := string(status) + "@example.com"
		member, err := production.Invite(t.Context(), testkit.Params("acme", email))
		require.NoError(t, err)
		if member.Status = status; status != clerkinvite.StatusPending {
			member.ClerkUserID, member.URL = "", clerkinvite.Secret{}
		}
		store := clerkinvitetest.NewMemoryStore()
		_, err = store.Insert(t.Context(), []*clerkinvite.Member{member})
		require.NoError(t, err)
		duplicate, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
		require.NoError(t, err)
		if status == clerkinvite.StatusPending {
			_, err = duplicate.Revoke(t.Context(), member.Ref())
		} else {
			_, err = duplicate.Reconcile(t.Context(), nil)
		}
		require.NoError(t, err)
		require.Empty(t, clerk.OpenInvitations(email), "production's invitation is revoked")
	}
}

// The table of docs/security.md on people who must not join any more is right.
func TestSecurityWhoMustNotJoin(t *testing.T) {
	t.Parallel()
	clerk := clerkinvitetest.NewClerk()
	now := time.Now()
	clock := func() time.Time { return now }
	clerk.SetNow(clock)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvitetest.NewMemoryStore(), Now: clock})
	require.NoError(t, err)
	ref := func(name string) clerkinvite.Ref {
		return clerkinvite.Ref{TenantID: "acme", Email: name + "@example.com"}
	}
	// Their accounts are created in time, but their addresses are verified after the invitation has expired.
	names := []string{"alone", "remove", "revoke", "invite", "purge"}
	users := make(map[string]string)
	for _, name := range append(names, "stranger", "sent") {
		_, err := svc.Invite(t.Context(), testkit.Params("acme", ref(name).Email))
		require.NoError(t, err)
	}
	now = now.Add(time.Hour)
	for _, name := range names {
		users[name] = clerk.AddUser(clerkinvitetest.UserSpec{Emails: []clerkinvitetest.EmailSpec{{Address: ref(name).Email}}}).ID
	}
	now = now.Add(40 * 24 * time.Hour)
	report, err := svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, len(names)+2, report.Expired)
	for _, name := range names {
		clerk.VerifyEmail(users[name], ref(name).Email)
	}
	emails := clerk.Emails()
	out := func(name string) {
		t.Helper()
		_, err := svc.Remove(t.Context(), ref(name))
		require.NoError(t, err)
	}
	resolves := func(name string) int {
		t.Helper()
		changed, err := svc.ResolveUser(t.Context(), users[name])
		require.NoError(t, err)
		return len(changed)
	}

	require.Equal(t, 1, resolves("alone"), "an expired member can still join")
	out("alone")
	out("remove")
	_, err = svc.Revoke(t.Context(), ref("revoke"))
	require.NoError(t, err)
	for _, name := range []string{"alone", "remove", "revoke"} {
		require.Zero(t, resolves(name))
	}

	member, err := svc.Invite(t.Context(), testkit.Params("acme", "invite@example.com"))
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, member.Status)
	require.NoError(t, svc.Purge(t.Context(), ref("purge")))
	require.Zero(t, resolves("purge"))
	require.Equal(t, emails, clerk.Emails(), "no email so far")

	// A delivery runs in between.
	_, err = svc.Reserve(t.Context(), testkit.Params("acme", "sent@example.com"))
	require.NoError(t, err)
	_, err = svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, clerk.OpenInvitations("sent@example.com"), 1)
	out("sent")
	require.Empty(t, clerk.OpenInvitations("sent@example.com"))
	_, err = svc.Invite(t.Context(), testkit.Params("acme", "stranger@example.com"))
	require.NoError(t, err)
	require.Equal(t, emails+2, clerk.Emails())
}

// docs/security.md names every module that a host links.
func TestSecurityNamesEveryDependency(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/security.md")
	output, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".", "./clerkapi").Output()
	require.NoError(t, err)
	modules := slices.Compact(slices.Sorted(strings.FieldsSeq(string(output))))
	require.Greater(t, len(modules), 8)
	for _, module := range modules {
		if module != "github.com/clerkinvite/clerkinvite" {
			mustHave(t, page, "`"+module+"`")
		}
	}
}

// docs/architecture.md names every file of the library and every module. Its picture is small and loads nothing else.
func TestArchitectureIsComplete(t *testing.T) {
	t.Parallel()
	page := readPage(t, "docs/architecture.md")
	for name := range rootFiles(t) {
		mustHave(t, page, "`"+name+"`")
	}
	for _, name := range regexp.MustCompile("`([a-z_]+\\.go)`").FindAllStringSubmatch(page, -1) {
		assert.FileExists(t, name[1])
	}
	files, err := doccheck.Files(".")
	require.NoError(t, err)
	for _, file := range files {
		if filepath.Base(file) == "go.mod" && file != "go.mod" {
			mustHave(t, page, "(../"+filepath.ToSlash(filepath.Dir(file))+")")
		}
	}

	picture := readPage(t, "docs/architecture.svg")
	require.Less(t, len(picture), 20_000)
	for _, bad := range []string{"<script", "<foreignObject", "@import", "url(http", "href=\"http", "data:"} {
		require.NotContains(t, picture, bad)
	}
}
