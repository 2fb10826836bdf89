package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestSeats(t *testing.T) {
	t.Parallel()
	testkit.RequireOutput(t, run)
}

func setup(t *testing.T) (*host, *clerkinvitetest.Clerk) {
	t.Helper()
	clerk := clerkinvitetest.NewClerk()
	h, err := newHost(t.Context(), pgtest.New(t).Pool(t), clerk)
	require.NoError(t, err)
	return h, clerk
}

func (h *host) taken(t *testing.T, tenant string) (taken int) {
	t.Helper()
	require.NoError(t, h.pool.QueryRow(t.Context(), takenSQL, tenant).Scan(&taken))
	return taken
}

// together calls invite twenty times at the same time, and returns how many calls found a seat.
func together(t *testing.T, invite func(email string) error) (invited int) {
	t.Helper()
	errs := make([]error, 20)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			<-begin
			errs[i] = invite(fmt.Sprintf("p%d@example.com", i))
		})
	}
	close(begin)
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			invited++
			continue
		}
		require.ErrorIs(t, err, seatsError{})
		status, message := clerkinvite.HTTPError(err)
		require.Equal(t, http.StatusConflict, status)
		require.Equal(t, "not enough seats are left", message)
	}
	return invited
}

// Twenty callers compete for three seats, in either way and in both.
func TestTwentyCallersForThreeSeats(t *testing.T) {
	t.Parallel()
	byTransaction := func(t *testing.T, h *host) func(string) error {
		t.Helper()
		return func(email string) error {
			results, err := h.inviteInTx(t.Context(), "acme", email)
			if err != nil {
				return err
			}
			return results[0].Err
		}
	}
	byHook := func(t *testing.T, h *host) func(string) error {
		t.Helper()
		return func(email string) error {
			_, err := h.limited.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			return err
		}
	}
	for name, way := range map[string]func(*testing.T, *host) func(string) error{
		"transaction": byTransaction,
		"hook":        byHook,
		"both": func(t *testing.T, h *host) func(string) error {
			t.Helper()
			return func(email string) error {
				if len(email)%2 == 0 {
					return byHook(t, h)(email)
				}
				return byTransaction(t, h)(email)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, clerk := setup(t)
			require.Equal(t, 3, together(t, way(t, h)))
			require.Equal(t, 3, h.taken(t, "acme"))
			require.Equal(t, 3, clerk.Emails(), "only the people with a seat get an email")
			require.Zero(t, together(t, func(email string) error { return way(t, h)("late-" + email) }))
		})
	}
}

// The list has more people than there are seats. The transaction invites none of them; the hook invites one person per seat.
func TestOneLongList(t *testing.T) {
	t.Parallel()
	h, clerk := setup(t)
	var twenty []string
	for i := range 20 {
		twenty = append(twenty, fmt.Sprintf("p%d@example.com", i))
	}
	_, err := h.inviteInTx(t.Context(), "acme", twenty...)
	require.ErrorIs(t, err, seatsError{})
	require.Zero(t, h.taken(t, "acme"))
	require.Zero(t, clerk.Emails())

	var wg sync.WaitGroup // and several such lists at the same time
	invited := make(chan string, 60)
	for n := range 3 {
		wg.Go(func() {
			var list []clerkinvite.InviteParams
			for _, email := range twenty {
				list = append(list, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprint(n, email)})
			}
			results, err := h.limited.InviteMany(t.Context(), list, nil)
			if err != nil {
				t.Error(err)
			}
			for _, r := range results {
				switch {
				case r.Err == nil:
					invited <- r.Member.Email
				case !errors.Is(r.Err, seatsError{}):
					t.Errorf("%v", r.Err)
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, invited, 3)
	require.Equal(t, 3, h.taken(t, "acme"))
	_, err = h.limited.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 3, clerk.Emails())
}

// A duplicate takes no seat, a person who leaves gives it back, and a tenant without a row has none.
func TestSeatsAreGivenBack(t *testing.T) {
	t.Parallel()
	h, _ := setup(t)
	three := []string{"ada@example.com", "joan@example.com", "grace@example.com"}
	_, err := h.inviteInTx(t.Context(), "acme", three...)
	require.NoError(t, err)
	results, err := h.inviteInTx(t.Context(), "acme", three[0])
	require.NoError(t, err)
	var duplicate *clerkinvite.DuplicateEmailError
	require.ErrorAs(t, results[0].Err, &duplicate)
	edith := clerkinvite.InviteParams{TenantID: "acme", Email: "edith@example.com"}
	_, err = h.limited.Invite(t.Context(), edith)
	require.ErrorIs(t, err, seatsError{})
	_, err = h.limited.Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: three[0]})
	require.NoError(t, err)
	_, err = h.limited.Invite(t.Context(), edith)
	require.NoError(t, err)
	_, err = h.limited.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: three[0]})
	require.ErrorIs(t, err, seatsError{}, "a revoked member needs a seat again")
	_, err = h.inviteInTx(t.Context(), "initech", three[0])
	require.ErrorIs(t, err, seatsError{})
}
