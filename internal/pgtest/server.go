package pgtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoBinaries means that this machine has no PostgreSQL to start.
var ErrNoBinaries = errors.New("no PostgreSQL on this machine; install it (Debian, Ubuntu: apt-get install -y postgresql; " +
	"macOS: brew install postgresql) or set CLERKINVITE_TEST_DATABASE, then run the tests with -count=1")

// dirPrefix marks the directories of this package, for sweep.
const dirPrefix = "clerkinvite-pg-"

// errPortTaken means that another process took the port first.
var errPortTaken = errors.New("port taken")

// server is a PostgreSQL server of this process.
type server struct {
	dir      string   // private: cluster, socket, log
	lock     *os.File // locked while this process lives
	port     int
	password string
	durable  bool          // with PostgreSQL's default settings, on a disk
	process  *os.Process   // nil before it was started
	exited   chan struct{} // closed when it has ended
}

// startServer creates a cluster and starts a server on it. For root it uses another user, because PostgreSQL does not run as root.
func startServer(ctx context.Context, durable bool) (_ *server, err error) {
	bin, err := findBin()
	if err != nil {
		return nil, err
	}
	id, err := serverIdentity()
	if err != nil {
		return nil, err
	}
	base := baseDir()
	if durable {
		base = os.TempDir()
	}
	sweep(base)
	s := &server{password: rand.Text(), durable: durable}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.dir, err = os.MkdirTemp(base, dirPrefix); err != nil {
		return nil, err
	}
	if s.lock, err = holdDir(s.dir); err != nil {
		return nil, err
	}
	if err := s.initdb(ctx, bin, id); err != nil {
		return nil, err
	}
	// The port may have been taken since it was found.
	for range 10 {
		if s.port, err = freePort(); err != nil {
			return nil, err
		}
		if err = s.start(ctx, bin, id); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, err
	}

	return s, nil
}

// dsn returns the connection string of the database "postgres". It uses TCP and not the socket, because every tool understands a
// URL with host and port, and because tests that cut connections need TCP.
func (s *server) dsn() string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}

	return u.String()
}

// initdb creates the cluster.
func (s *server) initdb(ctx context.Context, bin string, id *identity) error {
	passwordFile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(s.password), 0o600); err != nil {
		return err
	}
	if id != nil {
		for _, path := range []string{s.dir, passwordFile} {
			if err := os.Chown(path, id.uid, id.gid); err != nil {
				return err
			}
		}
	}
	// TCP needs a password, because every user of the machine can reach the port, and a database superuser can run programs as
	// the server's user. The socket needs none: other users cannot enter its directory. md5 is good enough for a random password
	// that lives for minutes, and scram costs 5 to 10 ms per connection, most of a short test.
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", s.data(), "-U", "postgres",
		"--pwfile="+passwordFile, "--auth-local=trust", "--auth-host=md5",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	s.prepare(cmd, bin, id)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}

	return nil
}

// start starts the server on its port and waits until it accepts connections.
func (s *server) start(ctx context.Context, bin string, id *identity) error {
	logPath := filepath.Join(s.dir, "log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()

	// The server must outlive ctx, which is the first test's.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), s.settings()...)
	cmd.Stdout, cmd.Stderr = log, log
	s.prepare(cmd, bin, id)
	if s.exited, err = launch(cmd); err != nil {
		return err
	}
	s.process = cmd.Process

	return s.ready(ctx, logPath)
}

// ready waits until the server accepts connections or has ended.
func (s *server) ready(ctx context.Context, logPath string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.dsn())
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.exited:
			log, _ := os.ReadFile(logPath)
			if bytes.Contains(log, []byte("Address already in use")) {
				return errPortTaken
			}

			return fmt.Errorf("postgres ended immediately:\n%s", bytes.TrimSpace(log))
		case <-ctx.Done():
			log, _ := os.ReadFile(logPath)

			return fmt.Errorf("postgres does not respond: %w\n%s", err, bytes.TrimSpace(log))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// settings returns the server's command line.
func (s *server) settings() []string {
	settings := [][2]string{
		{"listen_addresses", "127.0.0.1"},
		{"port", strconv.Itoa(s.port)},
		{"unix_socket_directories", s.dir},
		{"log_min_messages", "error"},
	}
	if !s.durable {
		settings = append(settings, [][2]string{
			{"max_connections", "400"}, // tests start several processes, each with a pool
			{"shared_buffers", "64MB"},

			// Nothing must outlive the server.
			{"fsync", "off"},
			{"synchronous_commit", "off"},
			{"full_page_writes", "off"},
			{"wal_level", "minimal"},
			{"max_wal_senders", "0"},

			// Statistics must not change while a test looks at plans.
			{"autovacuum", "off"},
			// Far from UTC, and not by full hours, to detect code that expects the server to use UTC.
			{"timezone", "<+0545>-05:45"},
		}...)
	}
	args := []string{"-D", s.data()}
	for _, setting := range settings {
		args = append(args, "-c", setting[0]+"="+setting[1])
	}

	return args
}

// prepare prepares a command for this server.
func (s *server) prepare(cmd *exec.Cmd, bin string, id *identity) { prepare(cmd, s.dir, bin, id) }

func (s *server) data() string { return filepath.Join(s.dir, "data") }

// stop ends the server immediately and removes its files.
func (s *server) stop() {
	if s.process != nil {
		_ = quit(s.process)
		select {
		case <-s.exited:
		case <-time.After(5 * time.Second):
			_ = s.process.Kill()
			<-s.exited
		}
	}
	if s.dir != "" {
		remove(s.dir)
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// remove removes a directory in which the last processes of a server may still be writing.
func remove(dir string) {
	for range 50 {
		if os.RemoveAll(dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lockName is the file in a server's directory that its process keeps locked. A process ID would be simpler, but wrong if two
// containers share the directory or IDs are used again.
const lockName = "lock"

// holdDir marks the directory as in use by this process while the file is open. The file gets its name after it was locked, so
// sweep never finds it unlocked.
func holdDir(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, lockName)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, lockName)); err != nil {
		return nil, errors.Join(err, f.Close())
	}

	return f, nil
}

// sweep removes the directories of killed processes. That also ends a server that outlived such a process (see procAttr), because
// PostgreSQL checks its lock file once a minute and stops if the file is missing.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			// Not readable for this user, not locked yet, or without a lock file since a kill.
			if info, statErr := os.Stat(dir); errors.Is(err, os.ErrNotExist) && statErr == nil && time.Since(info.ModTime()) > time.Hour {
				remove(dir)
			}

			continue
		}
		if lockFile(f) == nil {
			remove(dir)
		}
		_ = f.Close()
	}
}

// freePort returns a free TCP port.
var freePort = func() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()

	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // it is what Listen("tcp") returns
}

// binPatterns are the directories in which packages install PostgreSQL outside of PATH.
var binPatterns = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findBin returns the directory with initdb and postgres: CLERKINVITE_TEST_PGBIN, the one in PATH, or the newest installed version.
func findBin() (string, error) {
	if !supported {
		return "", fmt.Errorf("%w (on %s pgtest cannot start a server)", ErrNoBinaries, runtime.GOOS)
	}
	if dir := os.Getenv("CLERKINVITE_TEST_PGBIN"); dir != "" {
		if !hasServer(dir) {
			return "", fmt.Errorf("CLERKINVITE_TEST_PGBIN=%s: no initdb and postgres there", dir)
		}

		return dir, nil
	}
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// PATH may contain a link to postgres only.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, pattern := range binPatterns {
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if hasServer(dir) {
			return dir, nil
		}
	}

	return "", ErrNoBinaries
}

func hasServer(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return false
		}
	}

	return true
}

var versionInPath = regexp.MustCompile(`(\d+)[^/]*/bin$`)

// version returns 15 for …/postgresql/15/bin, 9 for …/9.6/bin, 0 without a version.
func version(bin string) int {
	match := versionInPath.FindStringSubmatch(bin)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1])

	return n
}
