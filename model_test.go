package clerkinvite_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/modeltest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// Random sequences of everything, thousands of them; package modeltest says how to make
// it more. With -short there are fewer.
func TestModel(t *testing.T) {
	t.Parallel()
	n := 5000
	if testing.Short() {
		n = 500
	}
	modeltest.Run(t, func(*testing.T) clerkinvite.Store { return clerkinvitetest.NewMemoryStore() }, &modeltest.Options{Sequences: n})
}

// The same on PostgreSQL: a schema for each of those that run at the same time, emptied
// between two sequences.
func TestModelPostgres(t *testing.T) {
	t.Parallel()
	n := 300
	if testing.Short() {
		n = 50
	}
	pool := pgtest.New(t).Pool(t)
	var mu sync.Mutex
	of := make(map[*testing.T]string) // schemas
	modeltest.Run(t, func(t *testing.T) clerkinvite.Store {
		mu.Lock()
		defer mu.Unlock()
		if of[t] == "" {
			of[t] = fmt.Sprint("model", len(of))
			require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: of[t]}).Migrate(t.Context()))
		}
		for _, table := range []string{"history", "member", "gate"} {
			_, err := pool.Exec(t.Context(), "DELETE FROM "+of[t]+".clerkinvite_"+table)
			require.NoError(t, err)
		}
		return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: of[t]})
	}, &modeltest.Options{Sequences: n})
}
