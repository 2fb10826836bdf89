package sqlitestore_test

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// several has stores on one file, like several processes. Each call uses the next store.
type several struct {
	stores []*sqlitestore.Store
	calls  atomic.Uint32
}

func (s *several) next() *sqlitestore.Store {
	return s.stores[int(s.calls.Add(1))%len(s.stores)]
}

func (s *several) Insert(ctx context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	return s.next().Insert(ctx, rows)
}

func (s *several) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	return s.next().Update(ctx, changes)
}

func (s *several) Find(ctx context.Context, q clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return s.next().Find(ctx, q)
}

func (s *several) Due(ctx context.Context, q clerkinvite.DueQuery) ([]*clerkinvite.Member, error) {
	return s.next().Due(ctx, q)
}

func (s *several) Page(ctx context.Context, q clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return s.next().Page(ctx, q)
}

func (s *several) Counts(ctx context.Context, tenantID string) (map[clerkinvite.Status]int, error) {
	return s.next().Counts(ctx, tenantID)
}

func (s *several) History(ctx context.Context, tenantID, id string) ([]clerkinvite.HistoryEntry, error) {
	return s.next().History(ctx, tenantID, id)
}

func (s *several) SwapTime(ctx context.Context, name string, old, next time.Time) (time.Time, error) {
	return s.next().SwapTime(ctx, name, old, next)
}

func (s *several) Clock(ctx context.Context) (time.Time, error) { return s.next().Clock(ctx) }

func TestSeveralStoresOnOneFile(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerkinvite.Store {
		path := filepath.Join(t.TempDir(), "clerkinvite.db")
		s := &several{stores: []*sqlitestore.Store{open(t, path), open(t, path), open(t, path)}}
		return s
	})
}
