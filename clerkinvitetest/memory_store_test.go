package clerkinvitetest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) clerkinvite.Store { return clerkinvitetest.NewMemoryStore() })
}

func TestMemoryStoreZeroValue(t *testing.T) {
	changes := 0
	store := &clerkinvitetest.MemoryStore{OnChange: func(context.Context, []clerkinvite.Change) error { changes++; return nil }}
	at, err := store.SwapTime(t.Context(), "turn", time.Time{}, time.Unix(1, 0))
	require.NoError(t, err)
	require.Equal(t, time.Unix(1, 0).UTC(), at)
	results, err := store.Insert(t.Context(), []*clerkinvite.Member{validMember()})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	require.Equal(t, 1, changes)
}

func validMember() *clerkinvite.Member {
	now := time.Now()
	return &clerkinvite.Member{
		ID: "01a20697-ab64-7803-8e30-a81be06bf057", TenantID: "tenant", Email: "secret@example.com",
		Status: clerkinvite.StatusReserved, Send: 1, NextAttemptAt: &now, ReservedAt: now, UpdatedAt: now,
	}
}

func TestMemoryStorePrintsNoAddress(t *testing.T) {
	store := clerkinvitetest.NewMemoryStore()
	_, err := store.Insert(t.Context(), []*clerkinvite.Member{validMember()})
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		for _, v := range []any{store, struct{ S clerkinvite.Store }{store}, []any{store}} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "secret", verb)
		}
	}
	assert.Equal(t, "MemoryStore[members=1]", fmt.Sprint(store))
}

// The store rejects the same rows as the PostgreSQL tables; TestChecks in the root package has the same list.
func TestMemoryStoreRejectsInvalidRows(t *testing.T) {
	for name, spoil := range map[string]func(m *clerkinvite.Member){
		"ID":                 func(m *clerkinvite.Member) { m.ID = "1" },
		"TenantID empty":     func(m *clerkinvite.Member) { m.TenantID = "" },
		"TenantID long":      func(m *clerkinvite.Member) { m.TenantID = strings.Repeat("x", 256) },
		"Email upper case":   func(m *clerkinvite.Member) { m.Email = "A@example.com" },
		"Status":             func(m *clerkinvite.Member) { m.Status = "new" },
		"reserved with user": func(m *clerkinvite.Member) { m.ClerkUserID = "user_1" },
		"never due":          func(m *clerkinvite.Member) { m.NextAttemptAt = nil },
		"Send":               func(m *clerkinvite.Member) { m.Send = 0 },
		"URL":                func(m *clerkinvite.Member) { m.URL = clerkinvite.NewSecret("https://example.com") },
		"Data":               func(m *clerkinvite.Member) { m.Data = []byte("{") },
	} {
		t.Run(name, func(t *testing.T) {
			store := clerkinvitetest.NewMemoryStore()
			m := validMember()
			spoil(m)
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{m})
			require.NoError(t, err)
			require.ErrorContains(t, results[0].Err, "invalid member")
			assert.NotContains(t, results[0].Err.Error(), "secret")

			inserted, err := store.Insert(t.Context(), []*clerkinvite.Member{validMember()})
			require.NoError(t, err)
			n := *inserted[0].Member
			n.Status, n.Sent, n.ClerkUserID = clerkinvite.StatusActive, 1, "pending_inv_1"
			results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: inserted[0].Member, New: &n}})
			require.NoError(t, err)
			require.ErrorContains(t, results[0].Err, "invalid member: ClerkUserID")
		})
	}
}

// A mirror that OnChange keeps equals the store after every verb.
func TestMemoryStoreOnChangeMirrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, mirror := clerkinvitetest.NewMemoryStore(), make(map[string]clerkinvite.Member)
	store.OnChange = func(_ context.Context, changes []clerkinvite.Change) error {
		for _, c := range changes {
			assert.True(t, c.Recorded())
			if c.Old != nil {
				assert.Equal(t, mirror[c.Old.ID].Status, c.Old.Status)
				delete(mirror, c.Old.ID)
			}
			if c.New != nil {
				mirror[c.New.ID] = *c.New
				c.New.Email = "changed" // a copy
			}
		}
		return nil
	}
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, ResendCooldown: -1})
	require.NoError(t, err)
	people := []clerkinvite.InviteParams{{TenantID: "acme", Email: ada}, {TenantID: "acme", Email: "grace@example.com"}}
	first := clerkinvite.Ref{TenantID: "acme", Email: ada}
	role := "owner"
	for _, verb := range []func() error{
		func() error { _, err := svc.Reserve(ctx, people[0]); return err },
		func() error { _, err := svc.InviteMany(ctx, people, nil); return err },
		func() error { _, err := svc.Resend(ctx, first); return err },
		func() error { _, err := svc.Update(ctx, first, clerkinvite.MemberUpdate{Role: &role}); return err },
		func() error { _, err := clerk.Accept(ada); return err },
		func() error { _, err := svc.Reconcile(ctx, nil); return err },
		func() error { _, err := svc.Remove(ctx, first); return err },
		func() error { return svc.Purge(ctx, clerkinvite.Ref{TenantID: "acme", Email: people[1].Email}) },
	} {
		require.NoError(t, verb())
		stored, err := store.Page(ctx, clerkinvite.PageQuery{})
		require.NoError(t, err)
		require.Len(t, mirror, len(stored))
		for _, m := range stored {
			require.Equal(t, m.Status, mirror[m.ID].Status)
			require.Equal(t, m.ClerkUserID, mirror[m.ID].ClerkUserID)
			require.Equal(t, m.Role, mirror[m.ID].Role)
		}
	}
}

// An error of OnChange refuses that change, and no other one of the batch.
func TestMemoryStoreOnChangeRefuses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	errHook := errors.New("no seat left")
	store, refused := clerkinvitetest.NewMemoryStore(), "grace@example.com"
	store.OnChange = func(_ context.Context, changes []clerkinvite.Change) error {
		for _, c := range changes {
			if c.New != nil && c.New.Email == refused || c.New == nil && c.Old.Email == refused {
				return errHook
			}
		}
		return nil
	}
	clerk := clerkinvitetest.NewClerk()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(t, err)
	results, err := svc.InviteMany(ctx, []clerkinvite.InviteParams{
		{TenantID: "acme", Email: ada}, {TenantID: "acme", Email: "grace@example.com"}, {TenantID: "acme", Email: "joan@example.com"},
	}, nil)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusPending, results[0].Member.Status)
	require.ErrorIs(t, results[1].Err, errHook)
	require.Equal(t, clerkinvite.StatusPending, results[2].Member.Status)
	_, err = svc.Get(ctx, clerkinvite.Ref{TenantID: "acme", Email: "grace@example.com"})
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)
	require.Equal(t, 2, clerk.Emails())

	refused = ada
	first := clerkinvite.Ref{TenantID: "acme", Email: ada}
	before, err := svc.Get(ctx, first)
	require.NoError(t, err)
	_, err = svc.Remove(ctx, first)
	require.ErrorIs(t, err, errHook)
	require.ErrorIs(t, svc.Purge(ctx, first), errHook)
	after, err := svc.Get(ctx, first)
	require.NoError(t, err)
	require.Equal(t, before.Status, after.Status)
	history, err := svc.History(ctx, first)
	require.NoError(t, err)
	require.Len(t, history, 2)
}
