package doccheck_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testFunctions returns the names of all tests, fuzz targets and examples of the repository.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	functions := make(map[string]bool)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				functions[f.Name.Name] = true
			}
		}
		return nil
	}))
	return functions
}

// Each promise of the README is attacked by tests that have its number in their names, and
// docs/reliability.md lists all of them.
func TestPromisesAreAttacked(t *testing.T) {
	t.Parallel()
	_, text, ok := strings.Cut(readPage(t, "README.md"), "\n## What is promised\n")
	require.True(t, ok)
	text, _, _ = strings.Cut(text, "\nNot promised")
	promises := regexp.MustCompile(`(?m)^(\d+)\. \*\*`).FindAllStringSubmatch(text, -1)
	require.GreaterOrEqual(t, len(promises), 9)

	want := make(map[string][]string)
	name := regexp.MustCompile(`^TestPromise(\d+)_\w+$`)
	for function := range testFunctions(t) {
		if m := name.FindStringSubmatch(function); m != nil {
			want[m[1]] = append(want[m[1]], function)
		}
	}
	listed := make(map[string][]string)
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|.*$`).FindAllStringSubmatch(readPage(t, "docs/reliability.md"), -1) {
		for _, m := range regexp.MustCompile("`_(\\w+)`").FindAllStringSubmatch(row[0], -1) {
			listed[row[1]] = append(listed[row[1]], "TestPromise"+row[1]+"_"+m[1])
		}
	}
	for i, promise := range promises {
		number := strconv.Itoa(i + 1)
		require.Equal(t, number, promise[1])
		assert.NotEmpty(t, want[number], "no test attacks promise %s", number)
		assert.ElementsMatch(t, want[number], listed[number], "the row of promise %s in docs/reliability.md", number)
		delete(want, number)
	}
	assert.Empty(t, want, "tests of a promise that the README does not make")
}

// Every test that the table of threats in SECURITY.md names exists, and every threat has one.
func TestSecurityTable(t *testing.T) {
	t.Parallel()
	functions := testFunctions(t)
	_, table, ok := strings.Cut(readPage(t, "SECURITY.md"), "## Threats")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n## ")
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Za-z0-9_]*)`")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != 4 || strings.TrimSpace(cells[0]) == "threat" {
			continue
		}
		rows++
		tests := named.FindAllStringSubmatch(cells[2], -1)
		require.NotEmpty(t, tests, "no test: %s", line)
		for _, test := range tests {
			require.True(t, functions[test[1]], "%s does not exist: %s", test[1], line)
		}
		require.NotEmpty(t, strings.TrimSpace(cells[3]), "what the host must do: %s", line)
	}
	require.Greater(t, rows, 20)
}
