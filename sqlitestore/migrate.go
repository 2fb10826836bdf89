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

	"github.com/clerkinvite/clerkinvite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate makes the file if it does not exist, readable for its owner only, and the
// tables, or brings them up to this version of the package. Any number of processes may call
// it at once. Tables of the host's own in the same file are not touched. Which migrations
// have run is in the table clerkinvite_migration.
//
// A file that is there already, an empty one too, keeps its permissions, and path-wal and path-shm get the same. It
// has to be there before on a file system without hard links (FAT), and where path is a symbolic link.
//
// If the file is of a newer version of the package, it does nothing and returns an error that
// wraps [clerkinvite.ErrSchemaNewer].
//
// It switches the file to write-ahead logging (WAL), which stays with it.
func (s *Store) Migrate(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := create(s.path, os.Link); err != nil {
		return fmt.Errorf("sqlitestore: Migrate: %w", err)
	}
	var mode, encoding string
	if err := s.writer.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return s.explain(ctx, err)
	}
	if mode != "wal" {
		return fmt.Errorf("sqlitestore: Migrate: %s stays in the journal mode %s: is it on a network file system?", s.path, mode)
	}
	if err := s.writer.QueryRowContext(ctx, "PRAGMA encoding").Scan(&encoding); err != nil {
		return s.explain(ctx, err)
	}
	if encoding != "UTF-8" {
		return fmt.Errorf("sqlitestore: Migrate: %s is in %s, in which texts have another order: use a file in UTF-8", s.path, encoding)
	}
	return s.write(ctx, func(tx *sql.Tx) error { return migrate(ctx, tx) })
}

// create makes an empty file that only its owner can read, because there will be addresses in it and links.
//
// It has its name only when it is closed: to close a file lets go of all locks that this
// process has on it, those of a connection to it too. So it gets its name by link, which is os.Link, and never replaces a file.
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
		return fmt.Errorf("the file system may have no hard links: make an empty file there that only its owner can read, and call it again: %w", err)
	}
	if _, err := os.Stat(path); err != nil { // or else another has made it meanwhile
		return fmt.Errorf("%s is a symbolic link to no file: open the path that it leads to, or make an empty file there "+
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
		return fmt.Errorf("%w: migration %d, this one knows %d", clerkinvite.ErrSchemaNewer, version, newest)
	}
	return nil
}
