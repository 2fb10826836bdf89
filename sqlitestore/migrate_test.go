package sqlitestore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// Any number may call it at once, on a file that is not there yet, and again later.
func TestMigrateAtOnceAndAgain(t *testing.T) {
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
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "%s holds addresses and links", file.Name())
	}
}

// A database of the host's is used as it is: its tables and its mode stay.
func TestMigrateBesideTablesOfTheHost(t *testing.T) {
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

// A file of a newer version is left as it is, and said to be newer; who knows better can go on.
func TestMigrateANewerFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store := open(t, path)
	_, err := store.DB().ExecContext(t.Context(), "INSERT INTO clerkinvite_migration VALUES (99, datetime('now'))")
	require.NoError(t, err)
	require.ErrorIs(t, store.Migrate(t.Context()), clerkinvite.ErrSchemaNewer)
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
}

// Migrate makes all or nothing, and does not take tables of another's for its own.
func TestMigrateFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tc := range map[string]struct{ sql, want string }{
		"tables of another's": {"CREATE TABLE clerkinvite_gate (x)", "clerkinvite_gate already exists"},
		"another encoding":    {"PRAGMA encoding = 'UTF-16'; CREATE TABLE x (x)", "use a file in UTF-8"},
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

	require.NoError(t, os.WriteFile(filepath.Join(dir, "text"), []byte("this is a text, and no database at all, whatever its name may be"), 0o600))
	for name, want := range map[string]string{"text": "not a database", "missing/file.db": "no such file"} {
		store, err := sqlitestore.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		require.ErrorContains(t, store.Migrate(t.Context()), want, name)
		require.NoError(t, store.Close())
	}
}
