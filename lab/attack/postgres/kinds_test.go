//go:build linux

package postgres_test

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/model/modeltest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// sequences is the number of random sequences per kind of database.
func sequences() int {
	if tally.Long() {
		return 300
	}
	return 20
}

// kind is a kind of database.
type kind struct {
	// fresh connects to a database of this kind with empty tables. direct bypasses a pooler in
	// between.
	fresh func(t *testing.T) (pool, direct *pgxpool.Pool)
	// create makes the tables in a schema, or in the one that search_path names.
	create func(t *testing.T, pool *pgxpool.Pool, schema string)
}

// suites runs the conformance suite and the model.
func (k kind) suites(t *testing.T) {
	t.Helper()
	t.Run("store", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) clerkinvite.Store {
			pool, _ := k.fresh(t)
			return clerkinvite.NewPgxStore(pool, nil)
		})
	})
	t.Run("model", k.model)
}

// model runs the random sequences.
func (k kind) model(t *testing.T) {
	pool, direct := k.fresh(t)
	schemas := modeltest.Schemas(func(t *testing.T, schema string) {
		t.Helper()
		k.create(t, direct, schema)
	}, func(t *testing.T, sql string) {
		t.Helper()
		_, err := direct.Exec(t.Context(), sql)
		require.NoError(t, err)
	})
	modeltest.Run(t, func(t *testing.T) clerkinvite.Store {
		return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schemas(t)})
	}, &modeltest.Options{Sequences: sequences()})
}

// on is a kind of database on a cluster.
func on(t *testing.T, c *cluster, create func(t *testing.T, pool *pgxpool.Pool, schema string)) kind {
	t.Helper()
	template := c.database()
	pool, err := pgxpool.New(t.Context(), c.dsn(template))
	require.NoError(t, err)
	create(t, pool, "")
	pool.Close() // because a database with connections cannot be copied
	return kind{create: create, fresh: func(t *testing.T) (pool, direct *pgxpool.Pool) {
		pool = newPool(t, c.dsn(c.databaseLike(template)), func(c *pgxpool.Config) { c.MaxConns = 8 })
		return pool, pool
	}}
}

// migrated makes the tables as most hosts do.
func migrated(t *testing.T, pool *pgxpool.Pool, schema string) {
	store := clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema})
	require.NoError(t, store.Migrate(t.Context()))
	require.NoError(t, store.Validate(t.Context()))
}

// partitions is the number per table.
const partitions = 4

// partitioned makes the tables partitioned by tenant, as migrations/README.md says.
func partitioned(t *testing.T, pool *pgxpool.Pool, schema string) {
	up, err := fs.ReadFile(clerkinvite.Migrations(), "001_init.up.sql")
	require.NoError(t, err)
	sql := partitionedSQL(string(up))
	if schema != "" {
		sql = "CREATE SCHEMA " + schema + "; SET LOCAL search_path TO " + schema + "; " + sql
	}
	_, err = pool.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: schema}).Validate(t.Context()))
	for _, table := range []string{"clerkinvite_member", "clerkinvite_history"} {
		var parts int
		name := table
		if schema != "" {
			name = schema + "." + table
		}
		require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_inherits WHERE inhparent = $1::text::regclass`, name).Scan(&parts))
		require.Equal(t, partitions, parts)
	}
}

// The two tables. Each ends at the first line that begins with a bracket.
var tenantTable = regexp.MustCompile(`(CREATE TABLE clerkinvite_(?:member|history) \((?s:.*?)\n\));`)

func partitionedSQL(up string) string {
	sql := tenantTable.ReplaceAllString(up, "$1 PARTITION BY HASH (tenant_id);")
	for _, table := range []string{"member", "history"} {
		for i := range partitions {
			sql += fmt.Sprintf("CREATE TABLE clerkinvite_%s_%d PARTITION OF clerkinvite_%s FOR VALUES WITH (MODULUS %d, REMAINDER %d);\n", table, i, table, partitions, i)
		}
	}
	return sql
}

// The store's contract and the service's promises also hold on tables that are partitioned by
// tenant.
func TestPartitionedByTenant(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "member and history hash-partitioned by tenant: conformance suite and model")
	servers := []version{{"", pgtest.Bin(t)}}
	if tally.Long() {
		servers = versions(t)
		if len(servers) > 3 { // the oldest, the default and the newest
			servers = []version{servers[0], servers[1], servers[len(servers)-1]}
		}
	}
	for _, v := range servers {
		t.Run(cmp.Or(v.name, "default"), func(t *testing.T) { on(t, newCluster(t, v.bin), partitioned).suites(t) })
	}
	row.Done(fmt.Sprintf("%d versions of PostgreSQL, %d partitions a table, every rule of the suite, %d sequences each", len(servers), partitions, sequences()), "nothing")
}

// The tested partitioning is the one that hosts are told to use.
func TestPartitionRecipe(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../../migrations/README.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(readme), "## Partitions")
	require.True(t, ok)
	_, script, ok := strings.Cut(section, "```sh\n")
	require.True(t, ok)
	script, _, _ = strings.Cut(script, "```")
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = "../../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	up, err := os.ReadFile("../../../migrations/001_init.up.sql")
	require.NoError(t, err)
	require.Equal(t, partitionedSQL(string(up)), string(out))
}

// version is a version of PostgreSQL.
type version struct{ name, bin string }

// versions are the ones in CLERKINVITE_TEST_PGBINS, oldest first.
func versions(t *testing.T) (list []version) {
	t.Helper()
	const variable = "CLERKINVITE_TEST_PGBINS"
	if os.Getenv(variable) == "" {
		pgtest.Missing(t, "postgres-versions", variable+" names no versions of PostgreSQL; scripts/fetch-postgres.sh gets them")
	}
	last := 0
	for part := range strings.SplitSeq(os.Getenv(variable), ":") {
		name, bin, ok := strings.Cut(part, "=")
		number, err := strconv.Atoi(name)
		require.True(t, ok && err == nil && number > last, "%s is not like 14=/some/bin:18=/another/bin, the oldest first", variable)
		last, list = number, append(list, version{name, bin})
	}
	return list
}

// The store's contract and the service's promises on every supported version.
func TestVersionsOfPostgreSQL(t *testing.T) {
	t.Parallel()
	list := versions(t)
	row := tally.Start(t, "versions of PostgreSQL: conformance suite, model, migrations")
	var names []string
	for _, v := range list {
		names = append(names, v.name)
		t.Run(v.name, func(t *testing.T) {
			c := newCluster(t, v.bin)
			require.Equal(t, v.name, strconv.Itoa(c.number/10000), "the version of %s", v.bin)
			migrates(t, newPool(t, c.dsn(c.database())))
			on(t, c, migrated).suites(t)
		})
	}
	row.Done(fmt.Sprintf("PostgreSQL %s, every rule of the suite, %d sequences each", strings.Join(names, ", "), sequences()), "nothing")
}

// migrates checks that many processes can migrate at the same time, and that down and up by hand
// gives the same tables.
func migrates(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	store := clerkinvite.NewPgxStore(pool, nil)
	require.Error(t, store.Validate(t.Context()))
	var all sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		all.Go(func() { errs[i] = store.Migrate(t.Context()) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, store.Validate(t.Context()))
	for _, direction := range []string{"down", "up"} {
		sql, err := fs.ReadFile(clerkinvite.Migrations(), "001_init."+direction+".sql")
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), string(sql), pgx.QueryExecModeSimpleProtocol)
		require.NoError(t, err)
	}
	require.NoError(t, store.Validate(t.Context()))
}

// newBouncer starts a PgBouncer in transaction mode, with few connections to each database for any
// number of clients, and returns its address.
func newBouncer(t *testing.T, c *cluster) (addr string) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // often missing in PATH
	}
	if _, err := exec.LookPath(program); err != nil {
		pgtest.Missing(t, "pgbouncer", "there is no PgBouncer; scripts/ensure-pgbouncer.sh installs it or says how")
	}
	dir, port := pgtest.Dir(t), freePort(t)
	ini := filepath.Join(dir, "pgbouncer.ini")
	// PgBouncer's user must be able to read it; the directory is closed to others.
	require.NoError(t, os.WriteFile(ini, fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%d user=postgres password=%s

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 2000
server_idle_timeout = 5
logfile = %s
`, c.port, c.password, port, bouncerConns, filepath.Join(dir, "log")), 0o644))
	cmd := pgtest.Command(t, dir, program, "-q", ini)
	exited, err := pgtest.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	})
	addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, patience, 5*time.Millisecond, "PgBouncer answers")
	return addr
}

// bouncerConns is the number of connections that all clients of a database share.
const bouncerConns = 4

// The modes of pgx that work with every PgBouncer in transaction mode. The default,
// cache_statement, needs 1.21 or newer.
var bouncerModes = []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}

// Nothing depends on a session: the store's contract and the service's promises hold through
// PgBouncer in transaction mode.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "PgBouncer in transaction mode: conformance suite and model")
	c := newCluster(t, pgtest.Bin(t))
	addr := newBouncer(t, c)
	plain := on(t, c, migrated)
	for _, mode := range bouncerModes {
		t.Run(mode.String(), func(t *testing.T) {
			migrated(t, newPool(t, c.dsn(c.database()), through(t, addr, mode)), "")
			kind{create: migrated, fresh: func(t *testing.T) (pool, direct *pgxpool.Pool) {
				_, direct = plain.fresh(t)
				dsn := direct.Config().ConnString()
				return newPool(t, dsn, func(c *pgxpool.Config) { c.MaxConns = 8 }, through(t, addr, mode)), direct
			}}.suites(t)
		})
	}
	row.Done(fmt.Sprintf("%d modes of pgx, %d connections to each database, every rule of the suite, %d sequences each",
		len(bouncerModes), bouncerConns, sequences()), "nothing")
}

// Promises 1, 3 and 4 under load, when each transaction of a host's connection may use a different
// server connection. There are no faults, so no call may fail.
func TestPgBouncerUnderLoadNothingIsLost(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "PgBouncer in transaction mode, under load")
	c := newCluster(t, pgtest.Bin(t))
	addr := newBouncer(t, c)
	calls := 150
	if tally.Long() {
		calls = 1000
	}
	var sum verdict
	for _, mode := range bouncerModes {
		dsn := c.dsn(c.database())
		l := startLoad(t, loadOptions{dsn: dsn, workers: 5, calm: true, configure: through(t, addr, mode)})
		l.enough(calls)
		sum = sum.plus(l.check(dsn))
		require.Empty(t, l.failed, "%v", l.failure)
	}
	row.Done(fmt.Sprintf("%d modes of pgx, 24 connections over %d; %s", len(bouncerModes), bouncerConns, sum.times()), sum.lost(), sum.failures())
}
