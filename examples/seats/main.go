// Seats is an application whose tenants pay for a number of seats. Neither concurrent callers
// nor long lists can invite more people than there are seats. It shows two ways. In the
// application's transaction, a list gets all of its seats or none. With PgxOptions.OnChange,
// people from a list are invited until all seats are taken. Config.Authorize cannot enforce
// the limit: it runs before anything is written, so all callers see the same free seats.
//
//	go run ./examples/seats
//
// It starts a temporary PostgreSQL, or uses a temporary schema in DATABASE_URL.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/examples/internal/scratch"
)

// seatsTable has the number of seats that each tenant has paid for. The number of taken seats
// is not stored but counted, so a seat is free again when its member leaves, however that
// happens.
const seatsTable = `
CREATE TABLE seats (tenant_id text PRIMARY KEY, paid integer NOT NULL);
INSERT INTO seats VALUES ('acme', 3), ('globex', 3);`

// takenSQL counts the members of a tenant who need a seat: invited or active.
const takenSQL = `SELECT count(*) FROM clerkinvite_member WHERE tenant_id = $1 AND status IN ('reserved', 'pending', 'active')`

// seatsError is the host's own error. HTTPError returns its text and its status.
type seatsError struct{}

func (seatsError) Error() string   { return "not enough seats are left" }
func (seatsError) HTTPStatus() int { return http.StatusConflict }

// checkSeats fails if a tenant has more members than seats. Call it after the members are
// written, in the same transaction: if it fails, roll that back.
//
// The lock makes the transactions of a tenant wait for each other. The count is a separate
// statement, because in a READ COMMITTED transaction a statement sees everything that was
// committed before it began: all members of the transactions that had the lock earlier.
func checkSeats(ctx context.Context, tx pgx.Tx, tenant string) error {
	var paid, taken int
	err := tx.QueryRow(ctx, `SELECT paid FROM seats WHERE tenant_id = $1 FOR UPDATE`, tenant).Scan(&paid)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // a tenant without a row has no seats
		return err
	}
	if err := tx.QueryRow(ctx, takenSQL, tenant).Scan(&taken); err != nil {
		return err
	}
	if taken > paid {
		return seatsError{}
	}
	return nil
}

// host is an application that uses both ways. Yours needs one.
type host struct {
	pool    *pgxpool.Pool
	store   *clerkinvite.PgxStore
	plain   *clerkinvite.Service // for invitations in the host's transaction
	limited *clerkinvite.Service // whose store checks the seats itself
}

func newHost(ctx context.Context, pool *pgxpool.Pool, api clerkinvite.ClerkAPI) (*host, error) {
	h := &host{pool: pool, store: clerkinvite.NewPgxStore(pool, nil)}
	if err := h.store.Migrate(ctx); err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, seatsTable); err != nil {
		return nil, err
	}
	var err error
	if h.plain, err = clerkinvite.New(clerkinvite.Config{API: api, Store: h.store}); err != nil {
		return nil, err
	}
	h.limited, err = clerkinvite.New(clerkinvite.Config{
		API: api, Store: clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{OnChange: takeSeats}),
	})
	return h, err
}

// inviteInTx invites people in the host's transaction if there is a seat for each. Duplicates
// need no seat; their Result has the error. All invitations of the host must use inviteInTx.
func (h *host) inviteInTx(ctx context.Context, tenant string, emails ...string) (results []clerkinvite.Result, err error) {
	err = pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
		if results, err = h.plain.InTx(h.store.WithTx(tx)).ReserveMany(ctx, to(tenant, emails)); err != nil {
			return err
		}
		return checkSeats(ctx, tx, tenant)
	})
	if err != nil {
		return nil, err
	}
	var refs []clerkinvite.Ref
	for _, r := range results {
		if r.Err == nil {
			refs = append(refs, r.Member.Ref())
		}
	}
	_, err = h.plain.DeliverMembers(ctx, refs)
	return results, err
}

// takeSeats is a PgxOptions.OnChange. Invite, InviteMany and Reserve return its error for each
// person without a seat: the store splits a list to find them. It rejects only invitations,
// not a person who joins shortly after the invitation has expired.
func takeSeats(ctx context.Context, tx pgx.Tx, changes []clerkinvite.Change) error {
	var tenants []string
	for _, c := range changes {
		if c.New != nil && c.New.Status == clerkinvite.StatusReserved && !hasSeat(c.Old) {
			tenants = append(tenants, c.New.TenantID)
		}
	}
	slices.Sort(tenants) // all transactions lock in the same order
	for _, tenant := range slices.Compact(tenants) {
		if err := checkSeats(ctx, tx, tenant); err != nil {
			return err
		}
	}
	return nil
}

func hasSeat(m *clerkinvite.Member) bool {
	return m != nil && slices.Contains([]clerkinvite.Status{clerkinvite.StatusReserved, clerkinvite.StatusPending, clerkinvite.StatusActive}, m.Status)
}

func to(tenant string, emails []string) []clerkinvite.InviteParams {
	people := make([]clerkinvite.InviteParams, len(emails))
	for i, email := range emails {
		people[i] = clerkinvite.InviteParams{TenantID: tenant, Email: email}
	}
	return people
}

func main() {
	scratch.Main(func(ctx context.Context, pool *pgxpool.Pool) error { return run(ctx, pool, os.Stdout) })
}

// run shows both ways.
func run(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
	h, err := newHost(ctx, pool, clerkinvitetest.NewClerk())
	if err != nil {
		return err
	}
	five := []string{"ada@example.com", "edith@example.com", "grace@example.com", "joan@example.com", "mary@example.com"} // sorted, like the rows that InviteMany writes
	show := func(tenant string, results []clerkinvite.Result, err error) error {
		if err != nil {
			_, message := clerkinvite.HTTPError(err)
			_, _ = fmt.Fprintln(out, "   the list is refused:", message)
		}
		for i, r := range results {
			said := "invited"
			if r.Err != nil {
				_, said = clerkinvite.HTTPError(r.Err)
			}
			_, _ = fmt.Fprintf(out, "   %s: %s\n", five[i], said)
		}
		var taken int
		if err := pool.QueryRow(ctx, takenSQL, tenant).Scan(&taken); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(out, "   %d of 3 seats are taken\n", taken)
		return nil
	}
	for _, n := range []int{5, 3} {
		_, _ = fmt.Fprintf(out, "%d people in the host's transaction\n", n)
		results, err := h.inviteInTx(ctx, "acme", five[:n]...)
		if err := show("acme", results, err); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(out, "5 people with the hook")
	results, err := h.limited.InviteMany(ctx, to("globex", five), nil)
	return show("globex", results, err)
}
