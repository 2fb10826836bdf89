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
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.GreaterOrEqual(t, len(blocks), 2)
	require.True(t, strings.HasPrefix(blocks[0][1], "package main"), "the first is a whole program")
	for i, block := range blocks {
		code := block[1]
		if !strings.HasPrefix(code, "package ") {
			code = fmt.Sprintf(snippetPrelude, strings.ReplaceAll(code, "member, err :=", "_, err ="))
		}
		file := filepath.Join(t.TempDir(), "main.go")
		require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
		out, err := exec.Command("go", "vet", file).CombinedOutput() // #nosec G204 -- the go tool on a file written here
		require.NoError(t, err, "block %d: %s", i+1, out)
	}
}
