package main

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/storetest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// This store runs one statement per row, so the large batches would take too long.
	if err := flag.Set("test.short", "true"); err != nil {
		panic(err)
	}
	os.Exit(pgtest.Main(m))
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		pool := pgtest.New(t).Pool(t, func(c *pgxpool.Config) { c.MaxConns = 8 })
		_, err := pool.Exec(t.Context(), schema)
		require.NoError(t, err)
		return refusing{&Store{pool}}
	})
}

// refusing is a store of the suite.
type refusing struct{ *Store }

// Refuse lets the suite check that a refused row fails alone.
func (s refusing) Refuse(ctx context.Context, tenantID string) error {
	return testkit.RefuseRows(ctx, s.pool, "admin_user", tenantID)
}

func TestOwnStore(t *testing.T) {
	t.Parallel()
	testkit.RequireOutput(t, run)
}
