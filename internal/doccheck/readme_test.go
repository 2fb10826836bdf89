package doccheck_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// snippetPrelude turns a snippet into a program, with the variables that the README has introduced.
const snippetPrelude = `package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
)

func main() { fmt.Println() }

func snippet(ctx context.Context, pool *pgxpool.Pool, store *clerkinvite.PgxStore, invites *clerkinvite.Service, email string, people []clerkinvite.InviteParams) error {
%s
	return err
}
`

// The Go code in the README compiles.
func TestReadmeCompiles(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s) *```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.GreaterOrEqual(t, len(blocks), 2)
	require.True(t, strings.HasPrefix(blocks[0][1], "package main"), "the first block is a whole program")
	signin := readPage(t, "examples/signin/main.go")
	for i, block := range blocks {
		code := block[1]
		if strings.Contains(signin, code) {
			continue // compiled there
		}
		if !strings.HasPrefix(code, "package ") {
			code = fmt.Sprintf(snippetPrelude, code)
		}
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
		out, err := exec.Command("go", "vet", file).CombinedOutput() // #nosec G204 -- the go tool on a file written here
		require.NoError(t, err, "block %d: %s", i+1, out)
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

// The view in the README has the pending and active members, and the columns that it calls stable exist.
func TestReadmeView(t *testing.T) {
	t.Parallel()
	readme := readPage(t, "README.md")
	view := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(readme)
	require.NotNil(t, view)
	store, pool := testkit.NewPgxStore(t)
	_, err := pool.Exec(t.Context(), view[1])
	require.NoError(t, err)
	testkit.InsertRows(t, store, testkit.PendingRow(testkit.ReservedRow("acme", "ada@example.com")), testkit.ReservedRow("acme", "joan@example.com"))
	require.Equal(t, "ada@example.com", testkit.QueryOne[string](t, pool, "SELECT email FROM admin_user"))

	stable := regexp.MustCompile("Your SQL can rely on `(\\w+)` and its columns (.*?)\\.").FindStringSubmatch(readme)
	require.NotNil(t, stable)
	columns := regexp.MustCompile(`\w+`).FindAllString(strings.ReplaceAll(stable[2], " and ", " "), -1)
	require.Greater(t, len(columns), 5)
	_, err = pool.Exec(t.Context(), "SELECT "+strings.Join(columns, ", ")+" FROM "+stable[1])
	require.NoError(t, err)
}
