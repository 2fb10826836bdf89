package doccheck_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/doccheck"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// Every command that the documentation shows exists: the target, the package, the flag, the test, the script. The tests of
// cmd/clerkinvite check its own commands.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	commands, err := doccheck.Commands(".")
	require.NoError(t, err)
	// In shell scripts, which the tests run, or which need what a test does not have.
	others := strings.Fields("clerkinvite cat cd curl echo export for git grep jq migrate printf psql sed sort xargs . { }")
	checked := make(map[string]int)
	for _, c := range commands {
		program, args := c.Args[0], c.Args[1:]
		var problem string
		switch {
		case program == "make":
			problem = checkMake(t, args)
		case program == "go":
			problem = checkGo(t, args)
		case program == "bash" || strings.HasPrefix(program, "scripts/"):
			if _, err := os.Stat(slices.Concat(args, []string{program})[0]); err != nil {
				problem = err.Error()
			}
		case !slices.Contains(others, program):
			problem = "unknown program"
		}
		assert.Empty(t, problem, "%s: %s", c.File, strings.Join(c.Args, " "))
		checked[program]++
	}
	require.Greater(t, min(checked["make"], checked["go"], checked["clerkinvite"]), 20)
}

// checkMake returns what is wrong with the arguments of make.
func checkMake(t *testing.T, args []string) string {
	t.Helper()
	makefile := readPage(t, "Makefile")
	for _, arg := range args {
		if name, _, ok := strings.Cut(arg, "="); ok {
			if !regexp.MustCompile(`\$\((or \$\()?` + name + `\b`).MatchString(makefile) {
				return "no variable " + name
			}
		} else if !strings.Contains(makefile, "\n"+arg+": ## ") {
			return "no target " + arg
		}
	}
	return ""
}

// checkGo returns what is wrong with the arguments of go.
func checkGo(t *testing.T, args []string) string {
	t.Helper()
	dir, patterns := ".", []string(nil)
	var sources string // of the named packages
	for i := 1; i < len(args); i++ {
		arg := strings.Trim(args[i], "[]")
		switch {
		case arg == "-C":
			i++
			dir = args[i]
		case arg == "-run" || arg == "-bench":
			i++
			patterns = append(patterns, args[i])
		case args[0] == "run" && sources != "" && strings.HasPrefix(arg, "-"):
			if !strings.Contains(sources, `"`+arg[1:]+`"`) {
				return "no flag " + arg
			}
		case strings.HasPrefix(arg, ".") || strings.HasPrefix(arg, "github.com/clerkinvite/"):
			path, _, _ := strings.Cut(strings.TrimPrefix(arg, "github.com/clerkinvite/clerkinvite"), "@")
			files, err := filepath.Glob(filepath.Join(dir, strings.TrimSuffix(path, "/..."), "*.go"))
			if err != nil || len(files) == 0 {
				return "no package " + arg
			}
			for _, file := range files {
				sources += readPage(t, file)
			}
		}
	}
	for _, pattern := range patterns {
		for one := range strings.SplitSeq(pattern, "|") {
			if sources != "" && pattern != "^$" && !regexp.MustCompile(`(?m)^func (Test|Benchmark)?`+strings.TrimSuffix(one, "$")).MatchString(sources) {
				return "no test " + one
			}
		}
	}
	return ""
}

var sqlSpan = regexp.MustCompile("`((?:DELETE FROM|UPDATE|SELECT) [^`]+)`")

// The SQL on every page runs after the migration, in the page's order.
func TestDocumentedSQL(t *testing.T) {
	t.Parallel()
	_, pool := testkit.NewPgxStore(t)
	found := 0
	for _, page := range pages(t) {
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		for _, role := range []string{"app", "anon", "authenticated"} {
			_, err := tx.Exec(t.Context(), `DO $$ BEGIN IF to_regrole('`+role+`') IS NULL THEN CREATE ROLE `+role+`; END IF; END $$`)
			require.NoError(t, err)
		}
		if page == "docs/migrating.md" {
			_, err := tx.Exec(t.Context(), "CREATE TABLE admin_user (tenant_id text, email text, clerk_user_id text)")
			require.NoError(t, err)
		}
		text := readPage(t, page)
		statements := slices.Concat(fencedBlock.FindAllStringSubmatch(text, -1), sqlSpan.FindAllStringSubmatch(fencedBlock.ReplaceAllString(text, ""), -1))
		for _, match := range statements {
			if sql := match[len(match)-1]; len(match) == 2 || match[1] == "sql" {
				found++
				_, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
				require.NoError(t, err, "%s: %s", page, sql)
			}
		}
		require.NoError(t, tx.Rollback(t.Context()))
	}
	require.Greater(t, found, 10)
}

// The scripts in migrations/README.md write a file for goose and one for tern. Each part of it runs.
func TestMigrationScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		pgtest.Missing(t, "session", "install bash")
	}
	root, err := filepath.Abs(".")
	require.NoError(t, err)
	found := 0
	for _, block := range fencedBlock.FindAllStringSubmatch(readPage(t, "migrations/README.md"), -1) {
		if !strings.Contains(block[2], "your/migrations") {
			continue
		}
		found++
		dir := t.TempDir()
		require.NoError(t, os.Symlink(filepath.Join(root, "migrations"), filepath.Join(dir, "migrations")))
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "your", "migrations"), 0o700))
		cmd := exec.CommandContext(t.Context(), "bash", "-euc", block[2]) // #nosec G204 -- the page's script
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		files, err := filepath.Glob(filepath.Join(dir, "your", "migrations", "*.sql"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		up, down, ok := strings.Cut(readPage(t, files[0]), "\n-- +goose Down\n")
		if !ok {
			up, down, ok = strings.Cut(readPage(t, files[0]), "\n---- create above / drop below ----\n")
		}
		require.True(t, ok)
		pool := pgtest.New(t).Pool(t)
		tables := func() int {
			return testkit.QueryOne[int](t, pool, `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'clerkinvite%'`)
		}
		for i, part := range []string{up, down} {
			_, err = pool.Exec(t.Context(), part, pgx.QueryExecModeSimpleProtocol)
			require.NoError(t, err)
			require.Equal(t, []int{3, 0}[i], tables())
		}
	}
	require.Equal(t, 2, found)
}
