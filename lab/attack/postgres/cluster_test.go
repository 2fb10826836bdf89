//go:build linux

package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/tally"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !tally.Long() {
		// The conformance suite runs on many kinds of databases, so its large batches are smaller.
		if err := flag.Set("test.short", "true"); err != nil {
			panic(err)
		}
	}
	os.Exit(pgtest.Main(m))
}

// patience is how long a test waits for something that should come soon.
const patience = 60 * time.Second

// cluster is a server that a test may stop, kill, restart and copy.
type cluster struct {
	t        *testing.T
	bin, dir string
	port     int
	password string
	settings []string
	names    *atomic.Int64 // numbers databases
	number   int           // the server's version

	process *os.Process
	exited  <-chan struct{}
}

// newCluster creates and starts a cluster. Unless the settings say otherwise, it syncs nothing and
// allows no standby.
func newCluster(t *testing.T, bin string, settings ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, bin: bin, dir: pgtest.Dir(t), port: freePort(t), password: rand.Text(), settings: settings, names: new(atomic.Int64)}
	pwfile := filepath.Join(c.dir, "password")
	require.NoError(t, os.WriteFile(pwfile, []byte(c.password), 0o644))
	// Every user of the machine can reach the port, but not the socket. pgtest explains the rest.
	c.run("initdb", "-D", c.data(), "-U", "postgres", "--pwfile="+pwfile, "--auth-local=trust", "--auth-host=md5",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	t.Cleanup(c.end)
	c.start()
	conn := c.connect()
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_setting('server_version_num')::int").Scan(&c.number))
	return c
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

// run runs one of PostgreSQL's programs.
func (c *cluster) run(program string, args ...string) {
	c.t.Helper()
	out, err := pgtest.Command(c.t, c.dir, filepath.Join(c.bin, program), args...).CombinedOutput()
	require.NoError(c.t, err, "%s: %s", program, out)
}

// start starts the server and waits until it responds.
func (c *cluster) start() {
	c.t.Helper()
	args := []string{"-D", c.data()}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(c.port), "unix_socket_directories=" + c.dir,
		"max_connections=200", "shared_buffers=64MB", "fsync=off", "autovacuum=off", "log_min_messages=error",
		// In the cluster's directory, so that a killed server leaves nothing elsewhere.
		"dynamic_shared_memory_type=mmap",
	}, c.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(c.t, err)
	defer log.Close()
	cmd := pgtest.Command(c.t, c.dir, filepath.Join(c.bin, "postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	c.exited, err = pgtest.Start(cmd)
	require.NoError(c.t, err)
	c.process = cmd.Process
	c.ready()
}

// ready waits until the server responds.
func (c *cluster) ready() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		conn, err := pgx.Connect(c.t.Context(), c.dsn("postgres"))
		if err == nil {
			require.NoError(c.t, conn.Close(c.t.Context()))
			return
		}
		over := time.Now().After(deadline)
		select {
		case <-c.exited:
			over = true
		case <-time.After(5 * time.Millisecond):
		}
		if over {
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			require.NoError(c.t, err, "%s", bytes.TrimSpace(log))
		}
	}
}

// signal stops the server in one of PostgreSQL's three ways and waits for its end.
func (c *cluster) signal(sig os.Signal) {
	_ = c.process.Signal(sig)
	<-c.exited
}

// kill ends all processes of the server at the same time, as a crash of the machine does, except
// that the system keeps unsynced data.
func (c *cluster) kill() {
	_ = c.process.Signal(syscall.SIGSTOP) // so that it starts no more children
	children := childrenOf(c.process.Pid)
	_ = c.process.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-c.exited
	// A server does not start while the old processes still use the shared memory.
	for _, pid := range children {
		require.Eventually(c.t, func() bool { return gone(pid) }, patience, time.Millisecond)
	}
}

// end stops the server for good, regardless of its state.
func (c *cluster) end() {
	if c.process == nil {
		return
	}
	select {
	case <-c.exited:
	default:
		c.signal(syscall.SIGQUIT)
	}
	// A killed server leaves a shared memory segment behind. Its number is in this file.
	pidfile, _ := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if lines := strings.Split(string(pidfile), "\n"); len(lines) > 6 {
		if fields := strings.Fields(lines[6]); len(fields) == 2 {
			if id, err := strconv.Atoi(fields[1]); err == nil {
				_, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, uintptr(id), 0 /* IPC_RMID */, 0)
			}
		}
	}
}

// standby creates a copy of a running primary that follows it.
func (c *cluster) standby(name string) *cluster {
	c.t.Helper()
	return c.standbyAt(freePort(c.t), name)
}

// standbyAt is standby on the port of an earlier server.
func (c *cluster) standbyAt(port int, name string) *cluster {
	c.t.Helper()
	s := &cluster{t: c.t, bin: c.bin, dir: pgtest.Dir(c.t), port: port, password: c.password, names: c.names, number: c.number}
	s.settings = append(slices.Clone(c.settings), "primary_conninfo=user=postgres host="+c.dir+" port="+strconv.Itoa(c.port)+" application_name="+name)
	s.run("pg_basebackup", "-h", c.dir, "-p", strconv.Itoa(c.port), "-U", "postgres", "-D", s.data(), "-R", "-X", "stream", "--checkpoint=fast", "--no-sync")
	// The copy inherited the setting to wait for a standby.
	require.NoError(c.t, os.WriteFile(filepath.Join(s.data(), "postgresql.auto.conf"), nil, 0o600))
	c.t.Cleanup(s.end)
	s.start()
	return s
}

// waitFor makes every commit wait for the standby.
func (c *cluster) waitFor(name string) {
	c.t.Helper()
	c.exec("ALTER SYSTEM SET synchronous_standby_names = '" + name + "'")
	c.exec("SELECT pg_reload_conf()")
	conn := c.connect()
	defer conn.Close(context.Background())
	require.Eventually(c.t, func() bool {
		var n int
		err := conn.QueryRow(c.t.Context(), `SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming' AND sync_state = 'sync'`, name).Scan(&n)
		return err == nil && n == 1
	}, patience, 5*time.Millisecond, "the standby follows")
}

func (c *cluster) connect() *pgx.Conn {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), c.dsn("postgres"))
	require.NoError(c.t, err)
	return conn
}

func (c *cluster) exec(sql string) {
	c.t.Helper()
	conn := c.connect()
	defer conn.Close(context.Background())
	_, err := conn.Exec(c.t.Context(), sql)
	require.NoError(c.t, err)
}

// dsn returns a connection string for a database on one server, or on whichever of several is the
// primary.
func (c *cluster) dsn(database string, others ...*cluster) string {
	hosts := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	more := ""
	for _, o := range others {
		hosts += "," + net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
		more = "&target_session_attrs=read-write&connect_timeout=2"
	}
	return "postgres://postgres:" + c.password + "@" + hosts + "/" + database + "?sslmode=disable" + more
}

// database creates an empty database and returns its name.
func (c *cluster) database() string {
	c.t.Helper()
	return c.databaseLike("template0")
}

// databaseLike copies a database that has no connections.
func (c *cluster) databaseLike(template string) string {
	c.t.Helper()
	name := fmt.Sprint("test", c.names.Add(1))
	sql := "CREATE DATABASE " + name + " TEMPLATE " + template
	if c.number >= 150000 {
		sql += " STRATEGY file_copy" // faster; before PostgreSQL 15 the only strategy, without a name
	}
	c.exec(sql)
	return name
}

// newPool connects a pool and closes it after the test.
func newPool(t *testing.T, dsn string, opts ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	return (&pgtest.DB{DSN: dsn}).Pool(t, opts...)
}

// freePort finds a free port that the system does not use for outgoing connections, so that it is
// still free when the server restarts.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + mathrand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// childrenOf returns the children of a process.
func childrenOf(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if fields := statFields(stat); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// gone reports whether a process has ended, even if its parent has not waited for it.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	fields := statFields(stat)
	return len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X")
}

// statFields are the state, the parent and so on, from "pid (name) state parent …". The name may
// contain any character.
func statFields(stat []byte) []string {
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}

// need skips a test if a program is missing.
func need(t *testing.T, what, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		pgtest.Missing(t, what, "there is no "+program)
	}
}
