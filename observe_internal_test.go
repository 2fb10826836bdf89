package clerkinvite

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without an observer, what the verbs do for one allocates nothing.
func TestUnobserved(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts what others allocate, too
	s, ctx, failed := &Service{}, t.Context(), errors.New("failed")
	verb := func(ctx context.Context) (err error) {
		ctx, op := s.observe(ctx, "Invite")
		defer op.end(&err)
		s.stateChanged(ctx, "", StatusReserved)
		return failed
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = verb(ctx) }))
}
