package testkit

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// RequireOutput runs an example on a new database and compares its output with the file expected.txt.
func RequireOutput(t *testing.T, run func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error) {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), pgtest.New(t).Pool(t), &out))
	expected, err := os.ReadFile("expected.txt")
	require.NoError(t, err)
	require.Equal(t, string(expected), out.String())
}
