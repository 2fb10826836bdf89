package sqlitestore_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// children are the programs of the processes that tests start.
var children = map[string]func(ctx context.Context, store *sqlitestore.Store, out io.Writer) error{
	"write": childWrites,
	"race":  childRaces,
}

func TestMain(m *testing.M) {
	flag.Parse()
	if name := os.Getenv("CLERKINVITE_SQLITE_CHILD"); name != "" {
		store, err := sqlitestore.Open(os.Getenv("CLERKINVITE_SQLITE_FILE"))
		if err == nil {
			err = children[name](context.Background(), store, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startChild starts a process that works on the file. It ends with the test at the latest.
func startChild(t *testing.T, name, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "CLERKINVITE_SQLITE_CHILD="+name, "CLERKINVITE_SQLITE_FILE="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

var testTime = time.Date(2026, 3, 1, 9, 30, 15, 123456000, time.UTC)

// reserved returns a row like those that Reserve writes.
func reserved(tenant, email string) *clerkinvite.Member {
	at := testTime
	return &clerkinvite.Member{
		ID: uuid.Must(uuid.NewV7()).String(), TenantID: tenant, Email: email, Status: clerkinvite.StatusReserved, Send: 1,
		Role: "editor", Data: []byte(`{"team": 7}`), Params: []byte(`{"redirect_url":"https://example.com"}`),
		ReservedAt: at, NextAttemptAt: &at, UpdatedAt: at, Version: 1,
	}
}

// pending returns m after its invitation was sent.
func pending(m *clerkinvite.Member) *clerkinvite.Member {
	n, at := *m, testTime.Add(time.Hour)
	n.Status, n.Sent, n.InvitationID, n.ClerkUserID = clerkinvite.StatusPending, n.Send, "inv_"+m.ID, "pending_inv_"+m.ID
	n.InvitedAt, n.SettledAt, n.ExpiresAt, n.NextAttemptAt, n.UpdatedAt = &testTime, &testTime, &at, nil, at
	return &n
}

// insertNew inserts rows that are new.
func insertNew(ctx context.Context, store clerkinvite.TxStore, rows ...*clerkinvite.Member) ([]*clerkinvite.Member, error) {
	results, err := store.Insert(ctx, rows)
	if err != nil {
		return nil, err
	}
	var written []*clerkinvite.Member
	for _, r := range results {
		if r.Err != nil {
			return nil, r.Err
		}
		written = append(written, r.Member)
	}
	return written, nil
}

const batchSize = 40

// childWrites writes until it is killed, and prints the ID and version of each member after the call that wrote it. It
// inserts members and changes them; every eighth insert is a batch.
func childWrites(ctx context.Context, store *sqlitestore.Store, out io.Writer) error {
	for i := 0; ; i++ {
		batch := fmt.Sprint("batch-", rand.Text())
		n := 1
		if i%8 == 7 {
			n = batchSize
		}
		var rows []*clerkinvite.Member
		for j := range n {
			m := reserved("tenant", fmt.Sprintf("%s-%d@example.com", strings.ToLower(batch), j))
			m.InvitedBy = batch
			rows = append(rows, m)
		}
		written, err := insertNew(ctx, store, rows...)
		if err != nil {
			return err
		}
		for _, m := range written {
			fmt.Fprintln(out, m.ID, m.Version)
		}
		if n > 1 {
			continue
		}
		results, err := store.Update(ctx, []clerkinvite.Change{{Old: written[0], New: pending(written[0])}})
		if err != nil {
			return err
		}
		if results[0].Err != nil {
			return results[0].Err
		}
		fmt.Fprintln(out, results[0].Member.ID, results[0].Member.Version)
	}
}

// When a process is killed at any moment, acknowledged writes are not lost, and the file is not damaged.
func TestAcknowledgedWritesSurviveSIGKILL(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/clerkinvite.db"
	open(t, path)
	acknowledged := make(map[string]int64)
	random := testkit.Random(t)
	for range 10 {
		cmd, lines := startChild(t, "write", path)
		chosen := random.IntN(150)
		killed := false
		for n := 0; lines.Scan(); n++ {
			id, version, complete := strings.Cut(lines.Text(), " ")
			if v, err := strconv.ParseInt(version, 10, 64); complete && err == nil && len(id) == 36 {
				acknowledged[id] = max(acknowledged[id], v)
			}
			if n == chosen {
				require.NoError(t, cmd.Process.Kill())
				killed = true
			}
		}
		_ = cmd.Wait()
		require.True(t, killed, "the process ended by itself: %v", cmd.ProcessState)
		checkFile(t, path, acknowledged)
	}
	require.NotEmpty(t, acknowledged)
}

// checkFile checks that the file is intact, has all acknowledged versions, and has no incomplete batch or change.
func checkFile(t *testing.T, path string, acknowledged map[string]int64) {
	t.Helper()
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	var integrity string
	require.NoError(t, store.DB().QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&integrity))
	require.Equal(t, "ok", integrity)
	require.ErrorIs(t, store.DB().QueryRowContext(t.Context(), "PRAGMA foreign_key_check").Scan(), sql.ErrNoRows, "no history without its member")

	found, err := store.Page(t.Context(), clerkinvite.PageQuery{Limit: 1 << 20})
	require.NoError(t, err)
	versions, batches := make(map[string]int64), make(map[string]int)
	for _, m := range found {
		versions[m.ID] = m.Version
		batches[m.InvitedBy]++
	}
	for id, version := range acknowledged {
		require.GreaterOrEqual(t, versions[id], version, "acknowledged versions are stored")
	}
	for _, n := range batches {
		require.Contains(t, []int{1, batchSize}, n, "a batch is complete or missing")
	}
	var without int
	require.NoError(t, store.DB().QueryRowContext(t.Context(), `
SELECT count(*) FROM clerkinvite_member m
WHERE m.version <> (SELECT count(*) FROM clerkinvite_history h WHERE h.tenant_id = m.tenant_id AND h.member_id = m.id)`).Scan(&without))
	require.Zero(t, without, "each version has a history entry")
}

const raced = 60

// childRaces reserves addresses that other processes also reserve, and prints the addresses that it got.
func childRaces(ctx context.Context, store *sqlitestore.Store, out io.Writer) error {
	for i := range raced {
		results, err := store.Insert(ctx, []*clerkinvite.Member{
			reserved("tenant", fmt.Sprintf("%d@example.com", i)), reserved("tenant", fmt.Sprintf("%d@example.com", raced-i-1)),
		})
		if err != nil {
			return err
		}
		for j, r := range results {
			var dup *clerkinvite.DuplicateEmailError
			switch {
			case r.Err == nil && r.Member.Email == fmt.Sprintf("%d@example.com", []int{i, raced - i - 1}[j]):
				fmt.Fprintln(out, r.Member.Email)
			case !errors.As(r.Err, &dup) || dup.Member == nil:
				return fmt.Errorf("neither written nor a duplicate: %w", r.Err)
			}
		}
	}
	return nil
}

// Of several processes that reserve the same address, exactly one succeeds.
func TestProcessesShareOneFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/clerkinvite.db"
	store := open(t, path)
	type child struct {
		cmd   *exec.Cmd
		lines *bufio.Scanner
	}
	var processes []child
	for range 3 {
		cmd, lines := startChild(t, "race", path)
		processes = append(processes, child{cmd, lines})
	}
	winners := make(map[string]int)
	for _, p := range processes {
		for p.lines.Scan() {
			winners[p.lines.Text()]++
		}
		require.NoError(t, p.cmd.Wait())
	}
	require.Len(t, winners, raced)
	for email, n := range winners {
		require.Equal(t, 1, n, email)
	}
	found, err := store.Due(t.Context(), clerkinvite.DueQuery{At: testTime})
	require.NoError(t, err)
	require.Len(t, found, raced)
}
