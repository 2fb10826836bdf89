package sqlitestore_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// Concurrent calls on a missing file all succeed, and so do later ones.
func TestConcurrentMigrate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			store, err := sqlitestore.Open(path)
			if assert.NoError(t, err) {
				assert.NoError(t, store.Migrate(t.Context()))
				assert.NoError(t, store.Close())
			}
		})
	}
	wg.Wait()
	store := open(t, path)
	require.NoError(t, store.Migrate(t.Context()))
	var n int
	require.NoError(t, store.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM clerkinvite_migration").Scan(&n))
	require.Equal(t, 1, n)

	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, file := range left {
		require.Contains(t, []string{"clerkinvite.db", "clerkinvite.db-wal", "clerkinvite.db-shm"}, file.Name())
		info, err := file.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "%s contains addresses and links", file.Name())
	}
}

// SQLite does not wait for a lock when it enables WAL, so Migrate does.
func TestMigrateWaitsForATransactionOfTheHost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "host.db")
	host, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer host.Close()
	tx, err := host.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "CREATE TABLE seat (n INTEGER)")
	require.NoError(t, err)
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	defer store.Close()
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, store.Migrate(soon), context.DeadlineExceeded)
	require.NoError(t, tx.Commit())
	require.NoError(t, store.Migrate(t.Context()))
}

// In a host's database, the host's tables, settings and file mode are unchanged.
func TestMigrateBesideHostTables(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "host.db")
	host, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer host.Close()
	_, err = host.ExecContext(t.Context(), "CREATE TABLE seat (n INTEGER); INSERT INTO seat VALUES (7); PRAGMA user_version = 3")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(path, 0o640))
	store := open(t, path)
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	var n, version int
	require.NoError(t, host.QueryRowContext(t.Context(), "SELECT n FROM seat").Scan(&n))
	require.NoError(t, host.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version))
	require.Equal(t, []int{7, 3}, []int{n, version})
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
}

// Migrate returns an error for a file that a newer version migrated, and leaves it unchanged. The store still works.
func TestMigrateNewerFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store := open(t, path)
	_, err := store.DB().ExecContext(t.Context(), "INSERT INTO clerkinvite_migration VALUES (99, datetime('now'))")
	require.NoError(t, err)
	require.ErrorIs(t, store.Migrate(t.Context()), clerkinvite.ErrSchemaNewer)
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
}

// If Migrate fails, it has created nothing. Tables of another application with our names are an error.
func TestMigrateFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tc := range map[string]struct{ sql, want string }{
		"another's tables": {"CREATE TABLE clerkinvite_limit (x)", "clerkinvite_limit already exists"},
		"another encoding": {"PRAGMA encoding = 'UTF-16'; CREATE TABLE x (x)", "use a file with the encoding UTF-8"},
	} {
		path := filepath.Join(dir, name)
		other, err := sql.Open("sqlite", path)
		require.NoError(t, err)
		_, err = other.ExecContext(t.Context(), tc.sql)
		require.NoError(t, err)
		store, err := sqlitestore.Open(path)
		require.NoError(t, err)
		require.ErrorContains(t, store.Migrate(t.Context()), tc.want)
		require.NoError(t, store.Close())
		var n int
		require.NoError(t, other.QueryRowContext(t.Context(),
			"SELECT count(*) FROM sqlite_master WHERE name IN ('clerkinvite_member', 'clerkinvite_migration')").Scan(&n))
		require.Zero(t, n, name)
		require.NoError(t, other.Close())
	}

	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("this is plain text, and not a database, whatever its name says"), 0o600))
	for name, want := range map[string]string{"text": "not a database", "missing/file.db": "no such file"} {
		store, err := sqlitestore.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		require.ErrorContains(t, store.Migrate(t.Context()), want, name)
		require.NoError(t, store.Close())
	}
}

// If the file cannot be created, the error says what to do, and no file is left behind. Following the advice helps.
func TestMigrateCannotCreateFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target.db"), filepath.Join(dir, "link.db")
	require.NoError(t, os.Symlink(target, link))
	store, err := sqlitestore.Open(link)
	require.NoError(t, err)
	defer store.Close()
	require.ErrorContains(t, store.Migrate(t.Context()), "is a symbolic link to a file that does not exist; open the target")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	require.NoError(t, store.Migrate(t.Context()))
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	found, err := open(t, target).Due(t.Context(), clerkinvite.DueQuery{At: testTime})
	require.NoError(t, err)
	require.Len(t, found, 1, "the link and the file are the same database")

	directory, err := sqlitestore.Open(dir)
	require.NoError(t, err)
	defer directory.Close()
	require.ErrorContains(t, directory.Migrate(t.Context()), "is not a file")
}

// An existing empty file keeps its permissions, and path-wal and path-shm get the same.
func TestMigrateKeepsPermissions(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o600, 0o644} {
		path := filepath.Join(t.TempDir(), "clerkinvite.db")
		require.NoError(t, os.WriteFile(path, nil, mode))
		require.NoError(t, os.Chmod(path, mode)) // whatever the umask is
		open(t, path)
		for _, name := range []string{path, path + "-wal", path + "-shm"} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.Equal(t, mode, info.Mode().Perm(), name)
		}
	}
}

// The steps for backup and restore in the package comment work, even after a process that had the file open was killed.
// Only the owner can read the backup.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "clerkinvite.db"), filepath.Join(dir, "backup.db")
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	written, err := insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(backup, nil, 0o600))
	_, err = store.DB().ExecContext(t.Context(), "VACUUM INTO ?", backup)
	require.NoError(t, err)
	require.NoError(t, store.Close())

	cmd, lines := startChild(t, "write", path)
	require.True(t, lines.Scan())
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for _, name := range []string{path + "-wal", path + "-shm"} {
		require.NoError(t, os.Remove(name), "left by the killed process")
	}
	require.NoError(t, os.Rename(backup, path))

	store = open(t, path)
	found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.Equal(t, written, found)
	for pragma, want := range map[string]string{"integrity_check": "ok", "journal_mode": "wal"} {
		var got string
		require.NoError(t, store.DB().QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		require.Equal(t, want, got)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}
