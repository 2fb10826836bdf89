package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// This file is for tests that kill, restart and copy servers, or put other programs in front of them. They start these programs
// in the same way as New starts its server.

// Bin returns the directory with PostgreSQL's programs. Without one the test is skipped or fails; see [Missing].
func Bin(t testing.TB) string {
	t.Helper()
	bin, err := findBin()
	if errors.Is(err, ErrNoBinaries) {
		Missing(t, "postgres", err.Error())
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}

	return bin
}

// Dir creates an empty directory that belongs to the user of [Command]. It is removed after the test or, if this process is
// killed before, by the next run that starts a server.
func Dir(t testing.TB) string {
	t.Helper()
	base := baseDir()
	sweep(base)
	top, err := os.MkdirTemp(base, dirPrefix) //nolint:usetesting // other users cannot enter t.TempDir
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { remove(top) })
	lock, err := holdDir(top)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { _ = lock.Close() })
	dir := filepath.Join(top, "d")
	if err := errors.Join(os.Chmod(top, 0o711), os.Mkdir(dir, 0o700)); err != nil { // other users must be able to reach dir
		t.Fatalf("pgtest: %v", err)
	}
	if id, err := serverIdentity(); err != nil {
		t.Fatalf("pgtest: %v", err)
	} else if id != nil {
		if err := os.Chown(dir, id.uid, id.gid); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
	}

	return dir
}

// Command returns a command that runs a program in a directory of [Dir], as the servers' user, because PostgreSQL and PgBouncer
// refuse root. Its environment is the same on every machine.
func Command(t testing.TB, dir, program string, args ...string) *exec.Cmd {
	t.Helper()
	id, err := serverIdentity()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	cmd := exec.Command(program, args...)
	prepare(cmd, dir, filepath.Dir(program), id)

	return cmd
}

// Start starts a [Command] that ends with this process at the latest. exited is closed when it has ended.
func Start(cmd *exec.Cmd) (exited <-chan struct{}, err error) { return launch(cmd) }

// launch is Start.
func launch(cmd *exec.Cmd) (chan struct{}, error) {
	exited := make(chan struct{})
	started := make(chan error, 1)
	go func() {
		defer close(exited)
		// The program gets a signal when the thread that started it ends, not when the process ends, so the thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // tests notice an unexpected end by their connections
		}
	}()

	return exited, <-started
}

// prepare makes the command run as the given user, in an environment that is the same on every machine.
func prepare(cmd *exec.Cmd, dir, bin string, id *identity) {
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + dir}
	cmd.SysProcAttr = procAttr(id)
}
