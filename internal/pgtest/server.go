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

// errPortTaken means that somebody else was faster.
var errPortTaken = errors.New("port taken")

// server is a PostgreSQL of this process.
type server struct {
	dir      string   // private: cluster, socket, log
	lock     *os.File // held as long as this process lives
	port     int
	password string
	durable  bool          // with PostgreSQL's default settings, on a disk
	process  *os.Process   // nil before it was started
	exited   chan struct{} // closed when it has ended
}

// startServer makes a cluster and starts a server on it. It works for root (as another user, because PostgreSQL refuses root)
// and for everybody else.
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
	// A port that was free a moment ago need not be free still.
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

// dsn leads to the database "postgres". By TCP, not by the socket: a URL with host and port is what every tool understands, and
// tests that cut the connection use the same way as all others.
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

// initdb makes the cluster.
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
	// A password for TCP, because the port is open to every user of the machine, and the superuser of a database may run
	// programs as the one who runs the tests. The socket is in a directory that nobody else may enter. md5 is good enough for a
	// random password that lives for minutes, and scram costs 5 to 10 ms of work a connection: most of a short test.
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", s.data(), "-U", "postgres",
		"--pwfile="+passwordFile, "--auth-local=trust", "--auth-host=md5",
		"-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	s.prepare(cmd, bin, id)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}

	return nil
}

// start starts the server on its port and waits until it answers.
func (s *server) start(ctx context.Context, bin string, id *identity) error {
	logPath := filepath.Join(s.dir, "log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()

	// Not bound to the context, which is that of the first test only.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(bin, "postgres"), s.settings()...)
	cmd.Stdout, cmd.Stderr = log, log
	s.prepare(cmd, bin, id)
	if s.exited, err = launch(cmd); err != nil {
		return err
	}
	s.process = cmd.Process

	return s.ready(ctx, logPath)
}

// ready waits until the server answers, or has ended.
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

			return fmt.Errorf("postgres ended at once:\n%s", bytes.TrimSpace(log))
		case <-ctx.Done():
			log, _ := os.ReadFile(logPath)

			return fmt.Errorf("postgres does not answer: %w\n%s", err, bytes.TrimSpace(log))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// settings is the command line of the server.
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

			// Nothing has to outlive the server.
			{"fsync", "off"},
			{"synchronous_commit", "off"},
			{"full_page_writes", "off"},
			{"wal_level", "minimal"},
			{"max_wal_senders", "0"},

			// Statistics change when a test says so, not in the middle of one that looks at plans.
			{"autovacuum", "off"},
			// Far from UTC, and not by full hours: what relies on the server's clock being in UTC is seen.
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

// stop ends the server without ceremony (its data are thrown away) and removes what it wrote.
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

// lockName is the file in a server's directory that its process holds locked. A process number would be simpler, and wrong as
// soon as two containers share the directory or numbers are used again.
const lockName = "lock"

// holdDir marks the directory as in use by this process, for as long as the file is open. The file gets its name after it was locked,
// so there is no moment at which sweep could find it free.
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

// sweep removes the directories of processes that were killed before they could. Where a server outlived such a process (see
// procAttr), this ends it too: it looks at its lock file once a minute and stops when that is gone.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(filepath.Join(dir, lockName))
		if err != nil {
			// Not ours to read, or not locked yet, or left behind in between.
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

// freePort asks the system for a TCP port that is free now.
var freePort = func() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()

	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // it is what Listen("tcp") returns
}

// binPatterns is where packages put their versions of PostgreSQL, outside of PATH.
var binPatterns = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findBin returns the directory with initdb and postgres: the one that is asked for, the one in PATH, or the newest that is installed.
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
		// PATH may hold a link to postgres alone.
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

// version is 15 for …/postgresql/15/bin, 9 for …/9.6/bin, 0 where there is none.
func version(bin string) int {
	match := versionInPath.FindStringSubmatch(bin)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1])

	return n
}
