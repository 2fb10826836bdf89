package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// startServer starts a PostgreSQL with the settings that it comes with, so a commit waits for the disk. stop throws it
// away. It listens in its own directory, where nobody else may go.
func startServer(ctx context.Context) (_ *postgres, err error) {
	defer func() {
		if missing, ok := recover().(missingError); ok {
			err = missing
		}
	}()
	bin := pgtest.Bin(notATest{})
	// initdb makes the directory, as the user of the server.
	dir := filepath.Join(os.TempDir(), "clerkinvite-bench-"+rand.Text())
	initdb := pgtest.Command(notATest{}, os.TempDir(), filepath.Join(bin, "initdb"), "-D", dir, "-U", "postgres", "--auth=trust",
		"-E", "UTF8", "--locale=C", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), os.RemoveAll(dir))
	}
	server := pgtest.Command(notATest{}, dir, filepath.Join(bin, "postgres"), "-D", dir, "-c", "listen_addresses=", "-c", "unix_socket_directories="+dir,
		"-c", "log_min_messages=fatal")
	exited, err := pgtest.Start(server)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p := &postgres{dsn: "host=" + dir + " user=postgres dbname=postgres", stop: func() {
		_ = server.Process.Signal(os.Interrupt)
		select {
		case <-exited:
		case <-time.After(30 * time.Second):
			_ = server.Process.Kill()
			<-exited
		}
		_ = os.RemoveAll(dir)
	}}
	for {
		conn, err := pgx.Connect(ctx, p.dsn)
		if err == nil {
			return p, conn.Close(ctx)
		}
		select {
		case <-exited:
			p.stop()
			return nil, errors.New("PostgreSQL ended at once")
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// notATest lets a program use what pgtest has for tests: how to find PostgreSQL, and to run it as a user that it accepts.
type notATest struct {
	testing.TB // nil: nothing else is called
}

// missingError is why there is no PostgreSQL to start.
type missingError struct{ reason string }

func (e missingError) Error() string { return e.reason }

// Helper implements testing.TB.
func (notATest) Helper() {}

// Name implements testing.TB.
func (notATest) Name() string { return "bench" }

// Skip is called if there is no PostgreSQL. Its text is for those who test.
func (notATest) Skip(...any) {
	panic(missingError{"no PostgreSQL on this machine: install it, or name a server with -database"})
}

// Fatalf ends what a test would fail for.
func (notATest) Fatalf(format string, args ...any) { panic(missingError{fmt.Sprintf(format, args...)}) }
