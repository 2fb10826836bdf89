package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// All variants do the same work. The figures are not tested.
func TestQuick(t *testing.T) {
	t.Parallel()
	out := &bytes.Buffer{}
	require.NoError(t, run(t.Context(), []string{"-quick", "-database", pgtest.New(t).DSN}, out))
	require.Equal(t, 2*len(quick.loads)+1, strings.Count(out.String(), "/s |")/2, "%s", out)
	require.NotContains(t, out.String(), "NaN", "%s", out)
}

// The flow written by hand works: it links a verified user and reports a duplicate.
func TestByHand(t *testing.T) {
	t.Parallel()
	f := newFake()
	t.Cleanup(f.Close)
	pool := pgtest.New(t).Pool(t)
	_, err := pool.Exec(t.Context(), byHandTable)
	require.NoError(t, err)
	f.clerk.Load().SignUp("ada@example.com", true)
	byHand := newByHand(pool, f)
	require.NoError(t, byHand.invite(t.Context(), " Ada@Example.com"))
	require.ErrorIs(t, byHand.invite(t.Context(), "ada@example.com"), errByHandDuplicate)
	require.NoError(t, byHand.invite(t.Context(), "grace@example.com"))
	require.Len(t, f.clerk.Load().SentMail(), 1)
	var members string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT string_agg(email || ' ' || status || ' ' || clerk_user_id, ', ' ORDER BY email) FROM team_member").Scan(&members))
	require.Equal(t, "ada@example.com active user_000001, grace@example.com pending pending_inv_000001", members)
}
