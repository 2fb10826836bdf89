package testkit

import (
	"context"
	"sync"

	"github.com/clerkinvite/clerkinvite"
)

// FaultyStore fails the updates that settle, before or after they take effect.
type FaultyStore struct {
	clerkinvite.Store
	mu    sync.Mutex
	after bool
	err   error
}

// Fail makes settling fail from now on; a nil err ends that.
func (s *FaultyStore) Fail(err error, after bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.after = err, after
}

// Update implements clerkinvite.Store.
func (s *FaultyStore) Update(ctx context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	s.mu.Lock()
	err, after := s.err, s.after
	s.mu.Unlock()
	if n := changes[0].New; err == nil || n.ClaimedUntil != nil && n.ClaimedUntil.After(n.UpdatedAt) { // a claim
		return s.Store.Update(ctx, changes)
	}
	if after {
		if _, updateErr := s.Store.Update(ctx, changes); updateErr != nil {
			return nil, updateErr
		}
	}
	return nil, err
}
