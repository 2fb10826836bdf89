package sqlitestore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/clerkinvite/clerkinvite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate creates the file if it does not exist, readable only by its owner, and creates the
// tables or migrates them to this version of the package. It does not touch other tables in the
// file. The table clerkinvite_migration records which migrations have run. Migrate enables
// write-ahead logging (WAL), which stays enabled in the file. It is safe for concurrent use, also by
// several processes, and safe to retry.
//
// An existing file, even an empty one, keeps its permissions; path-wal and path-shm get the same. On
// a file system without hard links (FAT), or if path is a symbolic link, the file must exist already.
//
// If a newer version of the package migrated the file, Migrate does nothing and returns an error that
// wraps [clerkinvite.ErrSchemaNewer].
func (s *Store) Migrate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := create(s.path, os.Link); err != nil {
		return fmt.Errorf("sqlitestore: Migrate: %w", err)
	}
	mode, err := s.enableWAL(ctx)
	if err != nil {
		return s.explain(ctx, err)
	}
	if mode != "wal" {
		return fmt.Errorf("sqlitestore: Migrate: %s stays in the journal mode %s; it may be on a network file system", s.path, mode)
	}
	var encoding string
	if err := s.writer.QueryRowContext(ctx, "PRAGMA encoding").Scan(&encoding); err != nil {
		return s.explain(ctx, err)
	}
	if encoding != "UTF-8" {
		return fmt.Errorf("sqlitestore: Migrate: %s has the encoding %s, which sorts text differently; use a file with the encoding UTF-8", s.path, encoding)
	}
	return s.write(ctx, func(tx *sql.Tx) error { return migrate(ctx, tx) })
}

// enableWAL returns the journal mode that the file has afterwards. If another connection holds a lock,
// SQLite fails immediately, in spite of busy_timeout, so enableWAL repeats the statement for as long.
func (s *Store) enableWAL(ctx context.Context) (mode string, err error) {
	for range 1000 {
		err = s.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if code(err)&0xff != sqlite3.SQLITE_BUSY {
			return mode, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return "", err
}

// create creates an empty file that only its owner can read, because it will contain addresses and
// links. link is os.Link.
//
// The file gets its name after it was closed, because closing a file releases all locks that this
// process has on it, including those of its connections. link never replaces a file.
func create(path string, link func(from, to string) error) error {
	switch info, err := os.Stat(path); {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", path)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".clerkinvite-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := f.Close(); err != nil {
		return err
	}
	err = link(f.Name(), path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("the file system may not support hard links; create an empty file there that only its owner can read, and try again: %w", err)
	}
	if _, err := os.Stat(path); err != nil { // otherwise another process has created it
		return fmt.Errorf("%s is a symbolic link to a file that does not exist; open the target, or create an empty file there "+
			"that only its owner can read: %w", path, err)
	}
	return nil
}

// migrate runs the migrations that have not run.
func migrate(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `
CREATE TABLE IF NOT EXISTS clerkinvite_migration (
    version    INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT    NOT NULL
) STRICT`); err != nil {
		return err
	}
	var version int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM clerkinvite_migration`).Scan(&version); err != nil {
		return err
	}
	names, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	newest := 0
	for _, name := range names {
		number, _, _ := strings.Cut(filepath.Base(name), "_")
		if newest, err = strconv.Atoi(number); err != nil {
			return err
		}
		if newest <= version {
			continue
		}
		statements, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, string(statements)); err != nil {
			return fmt.Errorf("sqlitestore: migration %d: %w", newest, err)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO clerkinvite_migration (version, applied_at) VALUES (?, datetime('now'))`, newest); err != nil {
			return err
		}
	}
	if version > newest {
		return fmt.Errorf("%w: they are at migration %d, and this version knows %d", clerkinvite.ErrSchemaNewer, version, newest)
	}
	return nil
}
