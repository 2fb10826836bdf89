package clerkinvite

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the SQL files that create the tables, for hosts that run them with their
// own tool: pairs of NNN_name.up.sql and NNN_name.down.sql. See migrations/README.md.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // impossible with a constant name
	}
	return sub
}

// migration is one numbered file NNN_name.up.sql.
type migration struct {
	version int
	sql     string
}

// upMigrations returns the migrations in their order.
func upMigrations() ([]migration, error) {
	names, err := fs.Glob(Migrations(), "*.up.sql") // sorted
	if err != nil {
		return nil, err
	}
	var list []migration
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return nil, err
		}
		sql, err := fs.ReadFile(Migrations(), name)
		if err != nil {
			return nil, err
		}
		list = append(list, migration{version, string(sql)})
	}
	return list, nil
}

// migrateLock is the key of the advisory lock that Migrate takes: "clerkinv".
const migrateLock = 0x636c65726b696e76

// ErrSchemaNewer is returned by [PgxStore.Validate] if a newer version of the library migrated the
// tables, but they still have everything that this version needs. A host can ignore it during a
// rolling deployment.
var ErrSchemaNewer = errors.New("clerkinvite: the tables were migrated by a newer version of the library")

// Migrate creates the tables, or migrates them to this version of the library. It also creates
// the schema that [PgxOptions] names, if it does not exist. It does nothing if the tables are up
// to date or newer. The table clerkinvite_migration records which migrations have run.
//
// Migrate grants PUBLIC, and Supabase's roles anon and authenticated, no privileges on new tables,
// and revokes those that they get by default. If the tables are complete, the role needs no privilege
// on clerkinvite_migration. migrations/README.md lists the privileges that the library's role needs.
//
// A host that runs the SQL of [Migrations] with its own tool must continue to use that tool:
// Migrate returns an error if it did not create the tables. Other errors are PostgreSQL's. After
// an error, nothing has changed.
//
// Migrate works in one transaction, under an advisory lock. It is safe for concurrent use, also
// by several processes, and safe to retry.
func (s *PgxStore) Migrate(ctx context.Context) error {
	list, err := upMigrations()
	if err != nil {
		return err
	}
	var foreign bool
	err = s.repeat(ctx, func(bool) error {
		// READ COMMITTED, so that the transaction sees what the previous owner of the lock did.
		return pgx.BeginTxFunc(ctx, s.db, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			foreign, err = s.migrate(ctx, tx, list)
			return err
		})
	})
	if err == nil && foreign {
		return errors.New("clerkinvite: Migrate: the tables exist, but Migrate did not create them; continue with the tool that did, and check them with Validate")
	}
	return err
}

// migrate does the work of Migrate. It does nothing if another tool created the tables.
func (s *PgxStore) migrate(ctx context.Context, tx pgx.Tx, list []migration) (foreign bool, err error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1::bigint)`, int64(migrateLock)); err != nil {
		return false, err
	}
	if s.schema != "" {
		// CREATE SCHEMA IF NOT EXISTS needs the privilege to create a schema even if it exists.
		// The cast to name truncates a long name, as PostgreSQL does in the other statements.
		exists, err := queryOne[bool](ctx, tx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::text::name)`, s.schema)
		if err != nil {
			return false, err
		}
		name := pgx.Identifier{s.schema}.Sanitize()
		if !exists {
			if _, err := tx.Exec(ctx, "CREATE SCHEMA "+name); err != nil {
				return false, err
			}
		}
		// Only for this transaction, so other users of the connection do not see it.
		if _, err := tx.Exec(ctx, `SELECT set_config('search_path', $1::text, true)`, name); err != nil {
			return false, err
		}
	}
	version, recorded, err := s.version(ctx, tx)
	if err != nil {
		return false, err
	}
	if version == versionUnknown {
		return false, s.complete(ctx, tx)
	}
	if !recorded {
		foreign, err = s.exists(ctx, tx, "clerkinvite_member")
		if err != nil || foreign {
			return foreign, err
		}
		if _, err := tx.Exec(ctx, `
CREATE TABLE clerkinvite_migration (
    version    integer     NOT NULL,
    applied_at timestamptz NOT NULL,
    CONSTRAINT clerkinvite_migration_pkey PRIMARY KEY (version)
)`); err != nil {
			return false, err
		}
	}
	for _, m := range list {
		if m.version <= version {
			continue
		}
		// Exec runs several statements in one call, because there are no parameters.
		if _, err := tx.Exec(ctx, m.sql); err != nil {
			return false, fmt.Errorf("clerkinvite: migration %d: %w", m.version, err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO clerkinvite_migration (version, applied_at) VALUES ($1::integer, now())`, m.version); err != nil {
			return false, err
		}
	}
	if recorded {
		return false, nil
	}
	return false, revokeDefaults(ctx, tx)
}

// revokeDefaults revokes what default privileges have granted to roles that anyone on the
// internet can use: PUBLIC, and the two roles of Supabase's API if they exist.
func revokeDefaults(ctx context.Context, tx pgx.Tx) error {
	roles, err := queryOne[string](ctx, tx, `
SELECT concat_ws(', ', 'PUBLIC', string_agg(quote_ident(rolname), ', ')) FROM pg_roles WHERE rolname IN ('anon', 'authenticated')`)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `REVOKE ALL ON clerkinvite_migration, clerkinvite_member, clerkinvite_history, clerkinvite_limit FROM `+roles)
	return err
}

// complete returns an error if the tables lack something.
func (s *PgxStore) complete(ctx context.Context, tx pgx.Tx) error {
	faults, err := s.validateTables(ctx, tx)
	if err != nil || len(faults) == 0 {
		return err
	}
	return errors.Join(append(faults, errors.New("clerkinvite: Migrate: this role must not read clerkinvite_migration; call Migrate with the role that created the tables"))...)
}

// exists reports whether a table exists. It reads pg_class, because to_regclass alone may return a
// result from a cache that is older than the table.
func (s *PgxStore) exists(ctx context.Context, db pgxQuerier, table string) (bool, error) {
	return queryOne[bool](ctx, db, `SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1::text))`, s.table(table))
}

// versionUnknown is the version if the role must not read clerkinvite_migration.
const versionUnknown = -1

// version returns the newest migration that Migrate has run. recorded is false if none has run.
func (s *PgxStore) version(ctx context.Context, db pgxQuerier) (version int, recorded bool, err error) {
	recorded, err = s.exists(ctx, db, "clerkinvite_migration")
	if err != nil || !recorded {
		return 0, false, err
	}
	readable, err := queryOne[bool](ctx, db, `SELECT has_table_privilege($1::text, 'SELECT') AND NOT row_security_active($1::text)`, s.table("clerkinvite_migration"))
	if err != nil || !readable {
		return versionUnknown, true, err
	}
	version, err = queryOne[int](ctx, db, `SELECT coalesce(max(version), 0) FROM `+s.table("clerkinvite_migration"))
	return version, true, err
}

// table returns the name of a table in SQL.
func (s *PgxStore) table(name string) string {
	if s.schema == "" {
		return name
	}
	return pgx.Identifier{s.schema, name}.Sanitize()
}

// pgxTables lists the name and kind of each column, check, foreign key and index that the store
// relies on. A test compares it with the tables that the migrations create.
var pgxTables = map[string]struct{ columns, constraints, indexes string }{
	"clerkinvite_member": {
		columns: `
			tenant_id text
			id uuid
			email text
			status text
			clerk_user_id text
			invitation_id text
			send integer
			sent integer
			bulk boolean
			url text
			role text
			invited_by text
			changed_by text
			data jsonb
			params json
			version bigint
			attempts integer
			claimed_until timestamp with time zone
			next_attempt_at timestamp with time zone
			reason text
			reserved_at timestamp with time zone
			invited_at timestamp with time zone
			expires_at timestamp with time zone
			settled_at timestamp with time zone
			updated_at timestamp with time zone`,
		constraints: `
			clerkinvite_member_tenant_id_check check
			clerkinvite_member_email_check check
			clerkinvite_member_status_check check
			clerkinvite_member_clerk_user_id_check check
			clerkinvite_member_invitation_id_check check
			clerkinvite_member_send_check check
			clerkinvite_member_due_check check
			clerkinvite_member_url_check check
			clerkinvite_member_text_check check
			clerkinvite_member_version_check check`,
		indexes: `
			clerkinvite_member_pkey unique (tenant_id, id)
			clerkinvite_member_email_key unique (tenant_id, email) WHERE (email IS NOT NULL)
			clerkinvite_member_user_key unique (tenant_id, clerk_user_id) WHERE (clerk_user_id IS NOT NULL)
			clerkinvite_member_waiting_idx (email)
			clerkinvite_member_active_idx (clerk_user_id)
			clerkinvite_member_id_idx (id)
			clerkinvite_member_status_idx (tenant_id, status, id)
			clerkinvite_member_due_idx (next_attempt_at)
			clerkinvite_member_turns_idx (bulk, tenant_id, next_attempt_at, id)
			clerkinvite_member_expiring_idx (expires_at)`,
	},
	"clerkinvite_history": {
		columns: `
			tenant_id text
			member_id uuid
			version bigint
			from_status text
			to_status text
			send integer
			sent integer
			clerk_user_id text
			invitation_id text
			role text
			reason text
			actor text
			at timestamp with time zone`,
		constraints: `clerkinvite_history_member_fkey foreign key`,
		indexes:     `clerkinvite_history_pkey unique (tenant_id, member_id, version)`,
	},
	"clerkinvite_limit": {
		columns: `
			name text
			blocked_until timestamp with time zone`,
		constraints: `clerkinvite_limit_name_check check`,
		indexes:     `clerkinvite_limit_pkey unique (name)`,
	},
}

// These statements list the parts of a table: name, kind, and whether the part is faulty. An
// unknown column is faulty if it requires a value. The condition is part of the kind only for
// a unique index, because there it decides which rows are unique.
const (
	columnsSQL = `
SELECT attname, format_type(atttypid, atttypmod), attnotnull AND NOT atthasdef AND attidentity = ''
FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped`
	constraintsSQL = `
SELECT conname, CASE contype WHEN 'c' THEN 'check' ELSE 'foreign key' END, NOT convalidated
FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype IN ('c', 'f')`
	indexesSQL = `
SELECT relname, CASE WHEN indisunique THEN 'unique ' ELSE '' END || '(' ||
	(SELECT string_agg(pg_get_indexdef(indexrelid, n, false), ', ' ORDER BY n) FROM generate_series(1, indnkeyatts) AS n) || ')' ||
	CASE WHEN indisunique AND indpred IS NOT NULL THEN ' WHERE ' || pg_get_expr(indpred, indrelid) ELSE '' END, NOT indisvalid
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = $1::text::regclass`
)

// Validate checks that the tables have everything that this version of the library needs, no
// matter which tool created them. It reads the system catalogue and, if it has the privilege,
// clerkinvite_migration. It changes nothing.
//
// Errors: all faults, joined, each with its remedy; [ErrSchemaNewer]; PostgreSQL's.
func (s *PgxStore) Validate(ctx context.Context) error {
	var result error
	err := s.repeat(ctx, func(bool) (err error) {
		result, err = s.validate(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return result
}

// validate returns the result of Validate, or an error if it could not read the catalogue.
func (s *PgxStore) validate(ctx context.Context) (result, err error) {
	list, err := upMigrations()
	if err != nil {
		return nil, err
	}
	newest := list[len(list)-1].version
	version, recorded, err := s.version(ctx, s.db)
	if err != nil {
		return nil, err
	}
	faults, err := s.validateTables(ctx, s.db)
	if err != nil {
		return nil, err
	}
	if recorded && version < newest && version != versionUnknown {
		faults = append([]error{fmt.Errorf("clerkinvite: the tables are at migration %d, but this version of the library needs %d; run Migrate", version, newest)}, faults...)
	}
	switch {
	case !recorded || version <= newest:
		return errors.Join(faults...), nil
	case len(faults) == 0:
		return fmt.Errorf("%w: they are at migration %d, and this version knows %d", ErrSchemaNewer, version, newest), nil
	default:
		return errors.Join(append(faults, fmt.Errorf("clerkinvite: the tables are at migration %d, and this version of the library knows %d", version, newest))...), nil
	}
}

// validateTables returns the faults of the tables, or an error if it could not read the catalogue.
func (s *PgxStore) validateTables(ctx context.Context, db pgxQuerier) (faults []error, err error) {
	for _, name := range slices.Sorted(maps.Keys(pgxTables)) {
		found, err := s.validateTable(ctx, db, name)
		if err != nil {
			return nil, err
		}
		faults = append(faults, found...)
	}
	return faults, nil
}

func (s *PgxStore) validateTable(ctx context.Context, db pgxQuerier, name string) (faults []error, err error) {
	table := s.table(name)
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("clerkinvite: "+format, args...)) }
	exists, err := s.exists(ctx, db, name)
	if err != nil {
		return nil, err
	}
	if !exists {
		if fault("the table %s does not exist; run Migrate, or the SQL of Migrations()", table); s.schema == "" {
			faults[0] = fmt.Errorf("%w; if it was created, its schema is not on the search_path of these connections: set PgxOptions.Schema", faults[0])
		}
		return faults, nil
	}
	for _, part := range []struct{ what, sql, want string }{
		{"column", columnsSQL, pgxTables[name].columns},
		{"constraint", constraintsSQL, pgxTables[name].constraints},
		{"index", indexesSQL, pgxTables[name].indexes},
	} {
		have, err := s.catalogue(ctx, db, table, part.sql)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(strings.TrimSpace(part.want)) {
			name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch now, ok := have[name]; {
			case !ok:
				fault("table %s has no %s %s %s", table, part.what, name, kind)
			case now.kind != kind:
				fault("table %s: %s %s is %s, but must be %s", table, part.what, name, now.kind, kind)
			case now.wrong && part.what != "column":
				fault("table %s: %s %s is not valid", table, part.what, name)
			}
			delete(have, name)
		}
		for _, name := range slices.Sorted(maps.Keys(have)) {
			if have[name].wrong && part.what == "column" {
				fault("table %s: column %s requires a value, but this version of the library does not know it", table, name)
			}
		}
	}
	return faults, nil
}

// pgxObject is a column, a constraint or an index.
type pgxObject struct {
	kind  string
	wrong bool
}

// catalogue returns the columns, constraints or indexes of a table, by name.
func (s *PgxStore) catalogue(ctx context.Context, db pgxQuerier, table, sql string) (map[string]pgxObject, error) {
	rows, err := db.Query(ctx, sql, table)
	if err != nil {
		return nil, err
	}
	found := make(map[string]pgxObject)
	var name string
	var o pgxObject
	_, err = pgx.ForEachRow(rows, []any{&name, &o.kind, &o.wrong}, func() error {
		o.kind = strings.ReplaceAll(o.kind, `"`, "") // PostgreSQL's quote_all_identifiers adds them
		found[name] = o
		return nil
	})
	return found, err
}
