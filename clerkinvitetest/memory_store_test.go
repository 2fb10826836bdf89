package clerkinvitetest_test

import (
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
			_, err := store.Insert(t.Context(), []*clerkinvite.Member{m})
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "secret")

			inserted, err := store.Insert(t.Context(), []*clerkinvite.Member{validMember()})
			require.NoError(t, err)
			n := *inserted[0].Member
			n.Status, n.Sent, n.ClerkUserID = clerkinvite.StatusActive, 1, "pending_inv_1"
			_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: inserted[0].Member, New: &n}})
			require.Error(t, err)
		})
	}
}
