package sqlitestore_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/model/modeltest"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// Random sequences of everything that can happen to a Service. Each of the parallel subtests has a file, and empties it
// before each sequence.
func TestModel(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	stores := make(map[*testing.T]*sqlitestore.Store)
	modeltest.Run(t, func(t *testing.T) clerkinvite.Store {
		mu.Lock()
		defer mu.Unlock()
		store := stores[t]
		if store == nil {
			store = open(t, filepath.Join(t.TempDir(), "clerkinvite.db"))
			stores[t] = store
		}
		for _, table := range []string{"history", "member", "limit"} {
			_, err := store.DB().ExecContext(t.Context(), "DELETE FROM clerkinvite_"+table)
			require.NoError(t, err)
		}
		return store
	}, &modeltest.Options{Sequences: 20})
}
