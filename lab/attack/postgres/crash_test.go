//go:build linux

package postgres_test

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// A server that syncs and acknowledges as in production. A killed process loses nothing that it
// gave to the system; keeping that on disk is PostgreSQL's promise and the disk's.
var durable = []string{"fsync=on", "synchronous_commit=on", "full_page_writes=on"}

// Promises 1, 3 and 4 while PostgreSQL is killed and restarted under load. Either all of its
// processes are killed, or one connection's process, after which the server ends the others and
// recovers.
func TestKilledUnderLoadNothingIsLost(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "PostgreSQL killed with -9 and started again, under load")
	c := newCluster(t, pgtest.Bin(t), durable...)
	dsn := c.dsn(c.database())
	l := startLoad(t, loadOptions{dsn: dsn})
	random := testkit.Random(t)
	rounds := 1
	if tally.Long() {
		rounds = 20
	}
	var longest time.Duration
	backends := 0
	for round := range 2 * rounds {
		l.enough(50 + random.IntN(300))
		stopped := time.Now()
		if round%2 == 0 {
			c.kill()
			l.mark()
			c.start()
		} else {
			killed := killBackend(t, c)
			l.mark()
			if killed {
				backends++
			}
			c.ready()
		}
		longest = max(longest, l.recovered().Sub(stopped))
	}
	l.enough(50)
	v := l.check(dsn)
	row.Done(fmt.Sprintf("%d kills of the server, %d of a backend; %s", rounds, backends, v.times()), v.lost(),
		fmt.Sprintf("longest time from a kill to the next success %d ms", longest.Milliseconds()), v.failures())
}

// killBackend kills the process of a client's connection.
func killBackend(t *testing.T, c *cluster) bool {
	t.Helper()
	conn := c.connect()
	defer conn.Close(context.Background())
	var pid int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY state = 'active' DESC, random() LIMIT 1`).Scan(&pid))
	return syscall.Kill(pid, syscall.SIGKILL) == nil
}

// The same when the primary is stopped for good and a standby replaces it. Commits wait for the
// standby, so no acknowledged row may be lost. The hosts find the new primary by their connection
// string.
func TestFailoverUnderLoadNothingIsLost(t *testing.T) {
	t.Parallel()
	row := tally.Start(t, "primary lost and standby promoted, under load")
	bin := pgtest.Bin(t)
	need(t, "postgres", filepath.Join(bin, "pg_basebackup"))
	primary := newCluster(t, bin, "wal_level=replica", "max_wal_senders=4", "wal_keep_size=512MB", "hot_standby=on")
	name := primary.database()
	ways := []struct {
		name string
		stop func(*cluster)
	}{
		{"kill -9", (*cluster).kill},
		{"immediate", func(c *cluster) { c.signal(syscall.SIGQUIT) }},
		{"fast", func(c *cluster) { c.signal(syscall.SIGINT) }},
	}
	random := testkit.Random(t)
	rounds := 1
	first := random.IntN(len(ways))
	if tally.Long() {
		rounds = 12
	}

	standby := primary.standby("s1")
	primary.waitFor("s1")
	// The addresses do not change: each new standby uses that of the lost primary.
	dsn := primary.dsn(name, standby)
	l := startLoad(t, loadOptions{dsn: dsn})
	var promoting, slowest, longest time.Duration
	for round := range rounds {
		l.enough(100 + random.IntN(300))
		way := ways[(first+round)%len(ways)]
		stopped := time.Now()
		way.stop(primary)
		began := time.Now()
		l.mark()
		standby.exec("SELECT pg_promote(true, 60)")
		promoted := time.Now()
		success := l.recovered()
		t.Logf("%s: promotion took %v, first success %v after it was asked for", way.name, promoted.Sub(began), success.Sub(began))
		promoting, slowest = max(promoting, promoted.Sub(began)), max(slowest, success.Sub(began))
		longest = max(longest, success.Sub(stopped))
		if round == rounds-1 {
			break
		}
		port := primary.port
		primary.end()
		primary, standby = standby, standby.standbyAt(port, "s1")
		primary.waitFor("s1")
	}
	l.enough(100)
	v := l.check(dsn)
	row.Done(fmt.Sprintf("%d failovers; %s", rounds, v.times()), v.lost(),
		fmt.Sprintf("promotion at most %d ms", promoting.Milliseconds()),
		fmt.Sprintf("first success at most %d ms after it was asked for", slowest.Milliseconds()),
		fmt.Sprintf("and at most %d ms after the stop began", longest.Milliseconds()), v.failures())
}
