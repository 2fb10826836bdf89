//go:build linux

package postgres_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// through makes a pool connect to another address than its connection string's.
func through(t *testing.T, addr string, mode pgx.QueryExecMode) func(*pgxpool.Config) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	number, err := strconv.ParseUint(port, 10, 16)
	require.NoError(t, err)
	return func(c *pgxpool.Config) {
		c.ConnConfig.Host, c.ConnConfig.Port = host, uint16(number)
		c.ConnConfig.TLSConfig, c.ConnConfig.Fallbacks = nil, nil
		c.ConnConfig.DefaultQueryExecMode = mode
	}
}

// Promises 1, 3 and 4 while the network to PostgreSQL and to Clerk is cut under load: at the
// moments that matter in every way, and then at random moments. A hook makes every change a
// transaction with its own commit.
func TestNetworkCutUnderLoadNothingIsLost(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "network cut to PostgreSQL and to Clerk, in each direction, under load")
	db := pgtest.New(t)
	if db.Addr == "" {
		pgtest.Missing(t, "postgres", "the server of CLERKINVITE_TEST_DATABASE is reached by a unix socket, which cannot be cut; name its TCP address")
	}
	database := newProxy(t, db.Addr, postgresAnswer)
	var clerk *proxy
	l := startLoad(t, loadOptions{
		dsn: db.DSN, hook: true, workers: 5, // many of which wait for a response that never comes
		// Each request contains the statement's text, so that the proxy can recognize it.
		configure: through(t, database.addr, pgx.QueryExecModeExec),
		url: func(server string) string {
			clerk = newProxy(t, server, httpAnswer)
			return "http://" + clerk.addr
		},
	})
	defer database.all(reset) // pgx waits long for silent connections to close
	l.enough(50)

	moments := []struct {
		name  string
		at    *proxy
		texts []string
	}{
		{"insert", database, []string{"INSERT INTO clerkinvite_member"}},
		{"update", database, []string{"UPDATE clerkinvite_member"}},
		{"commit", database, []string{"commit\x00"}},
		{"find", database, []string{"SELECT * FROM clerkinvite_member WHERE"}},
		{"limit", database, []string{"clerkinvite_limit"}},
		{"find users", clerk, []string{"GET /v1/users?"}},
		{"create", clerk, []string{"POST /v1/invitations HTTP"}},
		{"create bulk", clerk, []string{"POST /v1/invitations/bulk"}},
		{"list", clerk, []string{"GET /v1/invitations?"}},
		{"revoke", clerk, []string{"POST /v1/invitations/inv", "/revoke"}},
	}
	random := testkit.Random(t)
	rounds, more := 1, 6
	if tally.Long() {
		rounds, more = 6, 120
	}
	chosen := 0
	for range rounds {
		for _, i := range random.Perm(len(moments) * len(faults)) {
			m, f := moments[i/len(faults)], faults[i%len(faults)]
			select {
			case <-m.at.arm(f, m.texts...).sprung:
				chosen++
			case <-time.After(patience):
				t.Fatalf("no %s in all that time", m.name)
			}
		}
	}
	for range more {
		at, f := database, faults[random.IntN(len(faults))]
		if random.IntN(2) == 0 {
			at = clerk
		}
		at.all(f)
		if f == halfOpen { // the whole network fails, not single connections
			at.darken(true)
			time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
			at.darken(false)
		}
		l.enough(10 + random.IntN(20))
	}
	l.mark()
	l.recovered()
	v := l.check(db.DSN)
	row.Done(fmt.Sprintf("%d cuts at %d moments in %d ways, %d at any moment of all connections; %s", chosen, len(moments), len(faults), more, v.times()),
		v.lost(), v.failures())
}

// The proxy keeps its promise: a lost request has no effect, and a request whose response is lost
// has it.
func TestProxyCutsOnTheRightSide(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	if db.Addr == "" {
		pgtest.Missing(t, "postgres", "the server of CLERKINVITE_TEST_DATABASE is reached by a unix socket, which cannot be cut; name its TCP address")
	}
	p := newProxy(t, db.Addr, postgresAnswer)
	defer p.all(reset) // pgx waits long for silent connections to close
	direct := db.Pool(t)
	require.NoError(t, clerkinvite.NewPgxStore(direct, nil).Migrate(t.Context()))
	for i, c := range []struct {
		fault fault
		made  bool
	}{{requestLost, false}, {answerLost, true}, {halfOpen, false}, {silent, true}} {
		pool := db.Pool(t, through(t, p.addr, pgx.QueryExecModeExec))
		require.NoError(t, pool.Ping(t.Context()))
		trap := p.arm(c.fault, "INSERT INTO clerkinvite_limit")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		name := strconv.Itoa(i)
		_, err := pool.Exec(ctx, `INSERT INTO clerkinvite_limit (name, blocked_until) VALUES ($1, now())`, name)
		cancel()
		require.Error(t, err, c.fault)
		<-trap.sprung
		var made bool
		require.NoError(t, direct.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM clerkinvite_limit WHERE name = $1)`, name).Scan(&made))
		require.Equal(t, c.made, made, c.fault)
	}
}
