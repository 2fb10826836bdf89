package doccheck_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// snippetImports are the packages that snippets use.
var snippetImports = []string{
	"context", "errors", "fmt", "testing", "github.com/jackc/pgx/v5", "github.com/jackc/pgx/v5/pgxpool",
	"github.com/clerkinvite/clerkinvite", "github.com/clerkinvite/clerkinvite/clerkapi", "github.com/clerkinvite/clerkinvite/storetest",
}

// snippetVariables are the variables that the pages have introduced.
const snippetVariables = `
func main() {}

var (
	ctx           context.Context
	pool, replica *pgxpool.Pool
	api           *clerkapi.Client
	store         *clerkinvite.PgxStore
	invites       *clerkinvite.Service
	email         string
	newStore      func(*testing.T) clerkinvite.Store
)
`

// snippetProgram returns a program with the snippets of a page.
func snippetProgram(snippets []string) string {
	code := snippetVariables
	for i, snippet := range snippets {
		if strings.HasPrefix(snippet, "func ") || strings.HasPrefix(snippet, "// ") && strings.Contains(snippet, "\nfunc ") {
			code += snippet
			continue
		}
		code += fmt.Sprintf("\nfunc snippet%d() error {\n%s", i, snippet)
		for _, name := range regexp.MustCompile(`(?m)^(\w+)(?:, err)? :=`).FindAllStringSubmatch(snippet, -1) {
			code += "\t_ = " + name[1] + "\n"
		}
		if strings.Contains(snippet, "err :=") {
			code += "\treturn err\n}\n"
		} else {
			code += "\treturn nil\n}\n"
		}
	}
	program := "package main\n\nimport (\n"
	for _, path := range snippetImports {
		name := filepath.Base(strings.TrimSuffix(path, "/v5"))
		if regexp.MustCompile(`\b` + name + `\.`).MatchString(code) {
			program += fmt.Sprintf("\t%q\n", path)
		}
	}
	return program + ")\n" + code
}

// The Go code in the README and in docs compiles.
func TestDocsCompile(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	signin, found := readPage(t, "examples/signin/main.go"), 0
	for _, page := range append(pages, "README.md") {
		var snippets, programs []string
		for _, block := range fencedBlock.FindAllStringSubmatch(readPage(t, page), -1) {
			switch code := block[2] + "\n"; {
			case block[1] != "go":
			case strings.Contains(signin, code): // compiled there
				found++
			case strings.HasPrefix(code, "package "):
				programs = append(programs, code)
			default:
				snippets = append(snippets, code)
			}
		}
		found += len(snippets) + len(programs)
		if len(snippets) > 0 {
			programs = append(programs, snippetProgram(snippets))
		}
		for _, program := range programs {
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
			cmd := exec.CommandContext(t.Context(), "go", "vet", file) // #nosec G204 -- the go tool on a file written here
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s\n%s", page, out, program)
		}
	}
	require.GreaterOrEqual(t, found, 6)
}

// The README shows a part of the quickstart's output.
func TestReadmeQuickstart(t *testing.T) {
	t.Parallel()
	block := fencedBlock.FindStringSubmatch(readPage(t, "README.md"))
	require.NotNil(t, block)
	for line := range strings.Lines(block[2]) {
		mustHave(t, readPage(t, "examples/quickstart/expected.txt"), strings.TrimSuffix(line, "\n"))
	}
}

// docs/architecture.md has the states and state changes of the table in state.go.
func TestReadmeStates(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`reserved|pending|active|failed|revoked|expired|removed`)
	code := make(map[string][]string)
	for _, row := range regexp.MustCompile(`(?m)^\tStatus(\w+): +\{(.*)\},$`).FindAllStringSubmatch(readPage(t, "state.go"), -1) {
		code[strings.ToLower(row[1])] = word.FindAllString(strings.ToLower(row[2]), -1)
	}
	require.Len(t, code, len(clerkinvite.Statuses()))
	page := make(map[string][]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(readPage(t, "docs/architecture.md"), -1) {
		if code[row[1]] != nil {
			page[row[1]] = word.FindAllString(row[2], -1)
		}
	}
	for status, next := range code {
		require.ElementsMatch(t, next, page[status], status)
	}
}

// The view in docs/your-table.md has the pending and active members, and the columns that the page calls stable exist.
func TestYourTableView(t *testing.T) {
	t.Parallel()
	views := sqlBlocks(t, "docs/your-table.md")
	require.Len(t, views, 1)
	store, pool := testkit.NewPgxStore(t)
	_, err := pool.Exec(t.Context(), views[0])
	require.NoError(t, err)
	testkit.InsertRows(t, store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")), testkit.ReservedRow("acme", "joan@example.com"))
	require.Equal(t, "ada@example.com", testkit.QueryOne[string](t, pool, "SELECT email FROM admin_user"))

	stable := regexp.MustCompile("Your SQL can rely on `(\\w+)` and its columns (.*?)\\.").FindStringSubmatch(readPage(t, "docs/your-table.md"))
	require.NotNil(t, stable)
	columns := regexp.MustCompile(`\w+`).FindAllString(strings.ReplaceAll(stable[2], " and ", " "), -1)
	require.Greater(t, len(columns), 5)
	_, err = pool.Exec(t.Context(), "SELECT "+strings.Join(columns, ", ")+" FROM "+stable[1])
	require.NoError(t, err)
}

// followMembers keeps a row in admin_user for each pending or active member.
func followMembers(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	for _, c := range changes { // Old is nil for a new member, and New is nil after Purge
		var err error
		if m := c.New; m != nil && (m.Status == clerkinvite.StatusPending || m.Status == clerkinvite.StatusActive) {
			_, err = tx.Exec(ctx, `INSERT INTO admin_user (tenant_id, id, email, clerk_user_id) VALUES ($1, $2, $3, $4)
				ON CONFLICT (tenant_id, id) DO UPDATE SET email = excluded.email, clerk_user_id = excluded.clerk_user_id`,
				m.TenantID, m.ID, m.Email, m.ClerkUserID)
		} else if m := c.Old; m != nil {
			_, err = tx.Exec(ctx, `DELETE FROM admin_user WHERE tenant_id = $1 AND id = $2`, m.TenantID, m.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// docs/your-table.md shows followMembers, and it keeps the table equal to the members.
func TestYourTableOnChange(t *testing.T) {
	t.Parallel()
	_, code, _ := strings.Cut(readPage(t, "internal/doccheck/readme_test.go"), "\n// followMembers ")
	code, _, _ = strings.Cut(code, "\n}\n")
	mustHave(t, readPage(t, "docs/your-table.md"), "// followMembers "+code+"\n}\n")

	_, pool := testkit.NewPgxStore(t)
	_, err := pool.Exec(t.Context(), `CREATE TABLE admin_user (tenant_id text, id text, email text, clerk_user_id text, PRIMARY KEY (tenant_id, id))`)
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: followMembers})})
	require.NoError(t, err)
	row := func() string {
		return testkit.QueryOne[string](t, pool, `SELECT coalesce(string_agg(email || ' ' || clerk_user_id, ', '), '') FROM admin_user`)
	}
	member, err := svc.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	require.Equal(t, "ada@example.com "+clerkinvite.PendingID(member.InvitationID), row())
	_, err = clerk.AcceptInvitation(member.InvitationID)
	require.NoError(t, err)
	_, err = svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Regexp(t, "^ada@example.com user_", row())
	_, err = svc.Remove(t.Context(), member.Ref())
	require.NoError(t, err)
	require.Empty(t, row())
	_, err = svc.Invite(t.Context(), testkit.Params("acme", "ada@example.com"))
	require.NoError(t, err)
	require.Regexp(t, "^ada@example.com user_", row())
	require.NoError(t, svc.Purge(t.Context(), member.Ref()))
	require.Empty(t, row())
}

// docs/clerk-facts.md names every event that the library handles as one to subscribe to, and no other.
func TestDashboardEvents(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(readPage(t, "docs/clerk-facts.md"), "\n## Clerk's dashboard, step by step\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var events []string
	for _, event := range regexp.MustCompile(`(?m)^\tEvent\w+ += "(.*)"$`).FindAllStringSubmatch(readPage(t, "event.go"), -1) {
		events = append(events, event[1])
	}
	require.GreaterOrEqual(t, len(events), 3)
	var named []string
	for _, event := range regexp.MustCompile("`((?:user|organization\\w*)\\.\\w+)`").FindAllStringSubmatch(section, -1) {
		named = append(named, event[1])
	}
	require.ElementsMatch(t, events, named)
}
