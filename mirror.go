package clerkinvite

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// Mirror describes a table of the application that PostgreSQL keeps in sync with the members. Its
// methods return SQL for the host's migrations. Up creates triggers on clerkinvite_member. They write to
// the host's table in the transaction of each change, no matter which program makes it.
//
// The table has a row for each member whose status is in Statuses. The triggers look the row up by tenant
// and address, so the table needs a unique index on these two columns. They update an existing row, also
// when the member's address changes, and keep its primary key and its other columns. In a new row, the
// other columns get their defaults. They never change or delete a row whose address belongs to no member,
// or to a reserved or failed member.
//
// The columns can have any type that PostgreSQL converts from text, such as text, varchar, citext
// or uuid. A TenantID must be spelled as PostgreSQL prints the column's type (a uuid in lower case).
// The host's addresses must be normalised like the members': in lower case (unless the column is
// case-insensitive), without white space, and with the domain in ASCII (xn--…). The triggers would not
// find other rows, so Up and Sync fail if there are any.
//
// If the host's row cannot be written, for example because of a constraint, the change to that member is
// rolled back. Other members are not affected. The caller gets PostgreSQL's error. A later delivery tries
// again, as after an error of [PgxOptions].OnChange. In the host's transaction ([PgxStore.WithTx]) the error
// aborts the transaction.
//
// The triggers run with the privileges of the role that changes the member. The role needs SELECT,
// INSERT, UPDATE and DELETE on the host's table. If row-level security applies to the role, every
// change fails, because the triggers could not see all rows. TRUNCATE of clerkinvite_member fails.
type Mirror struct {
	// Table is the host's table: name or schema.name. Names are identifiers as PostgreSQL stores
	// them: without quotes, and case-sensitive. Without a schema, the search_path of the session
	// that runs Up decides.
	Table string `json:"table"`
	// Schema is [PgxOptions].Schema.
	Schema string `json:"schema,omitempty"`

	// The columns of Table for these fields of a member. TenantID and Email are required.
	TenantID    string `json:"tenant_id"`
	Email       string `json:"email"`
	ClerkUserID string `json:"clerk_user_id,omitempty"`
	Status      string `json:"status,omitempty"`
	// Role is the column for the role. For a member without a role, a new row gets the column's
	// default, and an existing row keeps its value. If the column is NOT NULL without a default, every
	// member needs a role. Up does not check this.
	Role string `json:"role,omitempty"`
	// MemberID is the column for [Member].ID.
	MemberID string `json:"member_id,omitempty"`

	// Statuses are the states in which a member has a row. Defaults to pending and active.
	// If they contain another state, ClerkUserID is NULL in the rows of members in that state.
	Statuses []Status `json:"statuses,omitempty"`

	// LeftColumn is a column such as "deleted_at" that marks members that have left the Statuses. By
	// default, the row is deleted when the member leaves.
	//
	// When the member leaves, the column gets LeftValue, or the current time if LeftValue is empty.
	// While the member is in one of the Statuses, the column has PresentValue, or NULL if PresentValue
	// is empty. When the member leaves, ClerkUserID also becomes "left_" and the member's ID, so that
	// no query by user finds the row. Purge finds the row by ClerkUserID or MemberID, and deletes it.
	// In a mirror without these two columns, Purge deletes the row if it has the member's address and is
	// marked in LeftColumn.
	LeftColumn   string `json:"left_column,omitempty"`
	LeftValue    string `json:"left_value,omitempty"`
	PresentValue string `json:"present_value,omitempty"`
}

// Up returns the SQL that creates the triggers and their function, clerkinvite_mirror. It is one
// statement, so an error leaves the database unchanged. It does not write existing members to the
// host's table; use Sync for that. Run both in one transaction, as the role that owns the tables. The
// SQL is safe to repeat: it replaces an earlier mirror of the same table. Repeat it after the type of a
// column has changed. It fails if
//   - the members are mirrored into another table;
//   - an address is not normalised;
//   - the table has no unique index on the tenant and the address (an index with a WHERE condition does
//     not count);
//   - a column that the mirror does not write is NOT NULL and has no default, unless the table has a BEFORE
//     INSERT trigger, which may fill it.
//
// Errors: *[InvalidParamsError].
func (m Mirror) Up() (string, error) { return m.sql(mirrorUp) }

// Down returns the SQL that drops the triggers and their function. It leaves the host's table
// unchanged, and is safe to repeat.
//
// Errors: *[InvalidParamsError].
func (m Mirror) Down() (string, error) { return m.sql(mirrorDown) }

// Sync returns the SQL that brings the host's table in sync with the members. Use it for members that
// existed before Up, and to repair what Differences finds. If a member's address has changed, Sync finds its
// row by MemberID or, in a mirror without that column, by ClerkUserID. A row that has never been a member's
// stays unchanged.
//
// It is one statement. If it cannot write a row, for example because of a constraint, it raises a warning
// and continues with the other members. Any other error, such as a missing privilege or an error of Up,
// fails the statement. It checks deferred constraints immediately, for the rest of its transaction. Until the
// transaction ends, it blocks writes to the members, but not reads. It is safe to repeat.
//
// Errors: *[InvalidParamsError].
func (m Mirror) Sync() (string, error) { return m.sql(mirrorSync) }

// Differences returns a query for the differences between the host's table and the members. Each row
// of its result has tenant_id, email and one of these differences:
//
//   - "missing": the host's table has no row for the member.
//   - "different": a column of the member's row has another value.
//   - "left over": a revoked, expired or removed member still has a row, possibly with another address.
//   - "not a member": the row has the ID of a Clerk user or an invitation, but it is not the row of a
//     member. Adopt the person or delete the row.
//   - "not normalised": the triggers cannot find this row.
//
// If there is a row, the tenant and address are the row's. The query reads both tables completely.
//
// Errors: *[InvalidParamsError].
func (m Mirror) Differences() (string, error) { return m.sql(mirrorDifferences) }

// See Mirror.sql for the placeholders.
const (
	// The search_path of the function and of Sync contains the schemas of the table and its columns' types.
	// PostgreSQL needs it to find the operators of a type such as citext.
	mirrorUp = `-- Keeps the host's table equal to the members. Generated by clerkinvite.Mirror.
DO {{outer $}}
DECLARE
	mirrored text;
	unfilled text;
BEGIN
	{{guard}}

	CREATE OR REPLACE FUNCTION {{function}}() RETURNS trigger LANGUAGE plpgsql SET row_security = off AS {{$}}
<<clerkinvite_mirror>>
DECLARE
	{{variables}}
BEGIN
	IF TG_OP = 'TRUNCATE' THEN
		RAISE EXCEPTION 'clerkinvite: the members are mirrored; use DELETE instead of TRUNCATE';
	END IF;
	IF TG_OP = 'DELETE' THEN
		BEGIN
			old_tenant_id := OLD.tenant_id;
			old_email := OLD.email;
		EXCEPTION WHEN data_exception OR check_violation THEN
			RETURN NULL; -- the columns cannot have these values, so there is no row to delete
		END;
	ELSIF {{is shown OLD}} THEN
		old_tenant_id := OLD.tenant_id;
		old_email := OLD.email;
	ELSE
		old_tenant_id := NEW.tenant_id;
		old_email := NEW.email;
	END IF;
	IF TG_OP = 'DELETE' THEN
		DELETE FROM {{table}} AS a {{at key}} AND ({{erased}});
	ELSIF {{is shown NEW}} THEN
		{{clear role}}{{put NEW}}
	ELSIF {{is shown OLD}} THEN
		{{leave NEW}}
	END IF;
	RETURN NULL;
END {{$}};

	EXECUTE {{'alter function'}} || {{schemas}} || ', pg_temp';
	CREATE OR REPLACE TRIGGER clerkinvite_mirror AFTER INSERT OR DELETE ON {{member}}
		FOR EACH ROW EXECUTE FUNCTION {{function}}();
	CREATE OR REPLACE TRIGGER clerkinvite_mirror_update AFTER UPDATE ON {{member}}
		FOR EACH ROW WHEN ((OLD.tenant_id, OLD.email, OLD.status, OLD.clerk_user_id, OLD.role) IS DISTINCT FROM
			(NEW.tenant_id, NEW.email, NEW.status, NEW.clerk_user_id, NEW.role)) EXECUTE FUNCTION {{function}}();
	CREATE OR REPLACE TRIGGER clerkinvite_mirror_truncate BEFORE TRUNCATE ON {{member}}
		FOR EACH STATEMENT EXECUTE FUNCTION {{function}}();
	COMMENT ON TRIGGER clerkinvite_mirror ON {{member}} IS {{'config'}};
END {{outer $}};
`
	mirrorDown = `DROP TRIGGER IF EXISTS clerkinvite_mirror ON {{member}};
DROP TRIGGER IF EXISTS clerkinvite_mirror_update ON {{member}};
DROP TRIGGER IF EXISTS clerkinvite_mirror_truncate ON {{member}};
DROP FUNCTION IF EXISTS {{function}}();
`
	// If a member's row has another address, the member's address changed while there were no triggers. The member's
	// chain also contains the member whose row has the new address, and so on, because each waits for the next. The
	// last one is written first. If it needs the address in the first one's row, that row gets a temporary address.
	mirrorSync = `-- Makes the host's table equal to the members. Generated by clerkinvite.Mirror.
DO {{$}}
<<clerkinvite_mirror>>
DECLARE
	moved record;
	member record;
	chain uuid[];
	row_emails text[];
	path text := current_setting('search_path');
	mirrored text;
	unfilled text;
	{{variables}}
BEGIN
	PERFORM set_config('search_path', concat_ws(', ', nullif(path, ''), {{schemas}}), true);
	LOCK TABLE {{member}} IN SHARE MODE;
	{{guard}}
	SET CONSTRAINTS ALL IMMEDIATE; -- so that each member's errors occur where they are caught
	FOR moved IN
		SELECT DISTINCT ON (m.tenant_id, m.id) m.tenant_id, m.id, m.email, a.{{email}}::text AS row_email
		FROM {{member}} m JOIN {{table}} AS a ON a.{{tenant_id}}::text COLLATE "C" = m.tenant_id AND {{same person}}
		WHERE {{is shown m}} AND NOT EXISTS (SELECT FROM {{table}} AS a WHERE {{same key}} AND {{same person}})
		ORDER BY m.tenant_id, m.id, a.{{email}}::text
	LOOP
		BEGIN
			old_tenant_id := moved.tenant_id;
			chain := ARRAY[moved.id];
			row_emails := ARRAY[moved.row_email];
			member := moved;
			LOOP
				old_email := member.email;
				SELECT m.tenant_id, m.id, m.email INTO member FROM {{table}} AS a JOIN {{member}} m ON {{occupant}} {{at key}} AND {{is shown m}};
				EXIT WHEN NOT FOUND OR member.id = ANY (chain);
				chain := chain || member.id;
				row_emails := row_emails || old_email::text;
			END LOOP;
			CONTINUE WHEN member.id = moved.id AND old_email::text = moved.email; -- written with another chain
			IF member.id = moved.id THEN
				UPDATE {{table}} AS a SET {{email}} = moved.id || '@moved.invalid' {{at key}};
				row_emails[1] := moved.id || '@moved.invalid';
			END IF;
			FOR i IN REVERSE cardinality(chain) .. 1 LOOP
				SELECT m.* INTO member FROM {{member}} m WHERE m.tenant_id = moved.tenant_id AND m.id = chain[i];
				old_email := row_emails[i];
				{{put member}}
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			{{not written}}
		END;
	END LOOP;
	FOR member IN {{left rows}} LOOP
		BEGIN
			old_tenant_id := member.tenant_id;
			old_email := member.row_email;
			{{leave member}}
		EXCEPTION WHEN OTHERS THEN
			{{not written}}
		END;
	END LOOP;
	FOR member IN SELECT * FROM {{member}} m WHERE {{missing}} LOOP
		BEGIN
			old_tenant_id := member.tenant_id;
			old_email := member.email;
			{{put member}}
		EXCEPTION WHEN OTHERS THEN
			{{not written}}
		END;
	END LOOP;
	PERFORM set_config('search_path', path, true);
END {{$}};
`
	mirrorDifferences = `SELECT tenant_id, email, CASE WHEN EXISTS (SELECT FROM {{table}} AS a WHERE {{same key}}) THEN 'different' ELSE 'missing' END AS difference
FROM {{member}} m WHERE {{missing}}
UNION ALL
SELECT tenant_id, email, 'left over' FROM {{member}} m WHERE {{left over}}
UNION ALL
SELECT a.{{tenant_id}}::text COLLATE "C", coalesce(a.{{email}}::text, '') COLLATE "C",
	CASE WHEN {{not normalised}} THEN 'not normalised' WHEN {{was member}} THEN 'left over' ELSE 'not a member' END
FROM {{table}} AS a WHERE {{not normalised}} OR {{no member}}
`
)

// mirrorColumn is a column in the host's table. field is the field of Mirror that names it, and member is
// the corresponding column of clerkinvite_member.
type mirrorColumn struct{ field, name, member string }

// columns returns the columns that the host has named.
func (m Mirror) columns() []mirrorColumn {
	return filter([]mirrorColumn{
		{"TenantID", m.TenantID, "tenant_id"}, {"Email", m.Email, "email"}, {"ClerkUserID", m.ClerkUserID, "clerk_user_id"},
		{"Status", m.Status, "status"}, {"Role", m.Role, "role"}, {"MemberID", m.MemberID, "id"}, {"LeftColumn", m.LeftColumn, "left"},
	}, func(c mirrorColumn) bool { return c.name != "" })
}

// check returns an *InvalidParamsError if a field is invalid.
func (m Mirror) check() error {
	columns := m.columns()
	var names []mirrorColumn
	for name := range strings.SplitSeq(m.Table, ".") {
		names = append(names, mirrorColumn{field: "Table", name: name})
	}
	names = append(names, mirrorColumn{field: "Schema", name: cmp.Or(m.Schema, "public")},
		mirrorColumn{field: "TenantID", name: m.TenantID}, mirrorColumn{field: "Email", name: m.Email})
	for _, c := range append(names, columns...) {
		if c.name == "" || len(c.name) > 63 || !storeutil.IsText(c.name) {
			return &InvalidParamsError{c.field, "must be a PostgreSQL name of 1 to 63 bytes"}
		}
	}
	if strings.Count(m.Table, ".") > 1 {
		return &InvalidParamsError{"Table", "must be name or schema.name"}
	}
	for i, c := range columns {
		if slices.ContainsFunc(columns[:i], func(other mirrorColumn) bool { return other.name == c.name }) {
			return &InvalidParamsError{c.field, "must not be the same column as another field"}
		}
	}
	for _, value := range []struct{ field, text string }{{"LeftValue", m.LeftValue}, {"PresentValue", m.PresentValue}} {
		if value.text != "" && (m.LeftColumn == "" || !storeutil.IsText(value.text)) {
			return &InvalidParamsError{value.field, "must be valid text, and needs LeftColumn"}
		}
	}
	if m.LeftValue != "" && m.LeftValue == m.PresentValue {
		return &InvalidParamsError{"PresentValue", "must differ from LeftValue"}
	}
	for _, s := range m.Statuses {
		if !slices.Contains(Statuses(), s) {
			return &InvalidParamsError{"Statuses", "must contain only states returned by Statuses"}
		}
	}
	return nil
}

// sql returns text with its placeholders replaced. The host's names and values are quoted and are
// replaced last, in one pass, so they cannot alter the statement.
func (m Mirror) sql(text string) (string, error) {
	if err := m.check(); err != nil {
		return "", err
	}
	config, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	text = m.structure().Replace(text)
	inSchema := func(name string) string {
		if m.Schema == "" {
			return name
		}
		return sqlName(m.Schema, name)
	}
	member, history, function := inSchema("clerkinvite_member"), inSchema("clerkinvite_history"), inSchema("clerkinvite_mirror")
	table, tenant, email := sqlName(strings.Split(m.Table, ".")...), sqlName(m.TenantID), sqlName(m.Email)
	left, present := "now()", "NULL"
	if m.LeftValue != "" {
		left = sqlText(m.LeftValue)
	}
	if m.PresentValue != "" {
		present = sqlText(m.PresentValue)
	}
	quote := "$mirror$"
	for strings.Contains(table+member+string(config)+left+present, quote[1:]) {
		quote = "$m" + quote[1:]
	}
	host := []string{
		"{{$}}", quote, "{{outer $}}", "$up_" + quote[1:], "{{member}}", member, "{{history}}", history, "{{function}}", function, "{{table}}", table, "{{left value}}", left, "{{present value}}", present,
		"{{'member'}}", sqlText(member), "{{'table'}}", sqlText(table), "{{'name'}}", sqlText(m.Table), "{{'config'}}", sqlText(string(config)),
		"{{'not normalised'}}", sqlText(fmt.Sprintf("clerkinvite: %s has addresses that are not normalised, so the triggers would not find them. "+
			"SELECT * FROM %s WHERE %s::text COLLATE \"C\" ~ '[^!-@[-~]' lists them. Delete a row if another one already has its normalised address. Run UPDATE %[2]s SET %[3]s = lower(btrim(%[3]s)), or make the column citext if only the case is wrong. "+
			"If a row is still listed, write its domain in ASCII (xn--…), or delete it", m.Table, table, email)),
		"{{'not unique'}}", sqlText(fmt.Sprintf("clerkinvite: %s has no unique index on the tenant and the address; run CREATE UNIQUE INDEX ON %s (%s, %s)", m.Table, table, tenant, email)),
		"{{'alter function'}}", sqlText("ALTER FUNCTION " + function + "() SET search_path = "),
	}
	for _, c := range m.columns() {
		host = append(host, "{{"+c.member+"}}", sqlName(c.name), "{{'"+c.member+"'}}", sqlText(c.name))
	}
	return strings.NewReplacer(host...).Replace(text), nil
}

// structure replaces the placeholders whose SQL depends on which fields are set.
//
// Each variable has the type of its column in the host's table, because an assignment in PL/pgSQL
// converts text to any type. Statements qualify variables with their block's label, so that they cannot be mistaken
// for columns. Joins compare the host's columns as text, because otherwise one member whose text
// cannot be converted would make the whole statement fail.
func (m Mirror) structure() *strings.Replacer {
	shown := m.Statuses
	if len(shown) == 0 {
		shown = []Status{StatusPending, StatusActive}
	}
	left := filter([]Status{StatusRevoked, StatusExpired, StatusRemoved}, func(s Status) bool { return !slices.Contains(shown, s) })

	const (
		sameKey  = `a.{{tenant_id}}::text COLLATE "C" = m.tenant_id AND lower(a.{{email}}::text COLLATE "C") = m.email`
		sameUser = `a.{{clerk_user_id}}::text COLLATE "C" = m.clerk_user_id`
		// The first condition can use an index. The second one keeps apart tenants that the column does not distinguish,
		// such as acme and Acme in citext.
		atKey = `WHERE a.{{tenant_id}} = clerkinvite_mirror.old_tenant_id AND a.{{tenant_id}}::text COLLATE "C" = clerkinvite_mirror.old_tenant_id::text
			AND a.{{email}} = clerkinvite_mirror.old_email`
		// An address of visible ASCII characters without capitals is normalised, or no member can have it.
		// The column is case-sensitive if these two constants, which get its type and collation, are two rows.
		notNormalised = `a.{{tenant_id}} IS NOT NULL AND a.{{email}}::text COLLATE "C" ~ (SELECT CASE count(*) WHEN 2 THEN '[^!-@[-~]' ELSE '[^!-~]' END
		FROM (SELECT {{email}} FROM {{table}} WHERE false UNION SELECT 'A@example.com' UNION SELECT 'a@example.com') AS cases)`
		// A unique index on expressions or on one of the columns distinguishes at least as much as one on both.
		isUnique = `indrelid = {{'table'}}::regclass AND indisunique AND indisvalid AND indpred IS NULL
		AND NOT EXISTS (
			SELECT attnum FROM unnest(indkey) WITH ORDINALITY AS key (attnum, n) WHERE n <= indnkeyatts AND attnum <> 0
			UNION ALL
			SELECT refobjsubid FROM pg_depend
			WHERE indexprs IS NOT NULL AND classid = 'pg_class'::regclass AND objid = indexrelid AND refclassid = classid AND refobjid = indrelid AND refobjsubid <> 0
			EXCEPT
			SELECT attnum FROM pg_attribute WHERE attrelid = indrelid AND attname IN ({{'tenant_id'}}, {{'email'}}))`
		// The columns that make every INSERT fail, unless a trigger fills them. The role column may be one of them,
		// because a host can invite everyone with a role.
		unfilled = `pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
		WHERE attrelid = {{'table'}}::regclass AND relkind IN ('r', 'p') AND attnum > 0 AND (attnotnull OR typnotnull)
		AND NOT atthasdef AND attidentity = '' AND typdefault IS NULL AND attname NOT IN ({{'columns'}})
		AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = attrelid AND tgtype & 7 = 7 AND tgenabled <> 'D')` // BEFORE INSERT FOR EACH ROW
		// Up and Sync begin with it, so that Sync writes nothing where Up failed.
		guard = `PERFORM {{columns}} FROM {{table}} AS a WHERE false; -- a clear error if one does not exist
	mirrored := (SELECT obj_description(oid, 'pg_trigger')::json ->> 'table' FROM pg_trigger
		WHERE tgrelid = {{'member'}}::regclass AND tgname = 'clerkinvite_mirror' AND obj_description(oid, 'pg_trigger') LIKE '{%');
	IF mirrored <> {{'name'}} THEN
		RAISE EXCEPTION 'clerkinvite: the members are mirrored into %; remove that mirror first', mirrored;
	END IF;
	IF EXISTS (SELECT FROM {{table}} AS a WHERE ` + notNormalised + `) THEN
		RAISE EXCEPTION USING MESSAGE = {{'not normalised'}};
	END IF;
	IF (SELECT relkind IN ('r', 'p') FROM pg_class WHERE oid = {{'table'}}::regclass) AND NOT EXISTS (SELECT FROM pg_index WHERE ` + isUnique + `) THEN
		RAISE EXCEPTION USING MESSAGE = {{'not unique'}};
	END IF;
	unfilled := (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM ` + unfilled + `);
	IF unfilled IS NOT NULL THEN
		RAISE EXCEPTION 'clerkinvite: % has NOT NULL columns without a default, so it would reject new members: %; give them a default, or allow NULL', {{'name'}}, unfilled;
	END IF;`
		schemas = `(SELECT string_agg(quote_ident(nspname), ', ' ORDER BY of_table DESC)
		FROM (
			SELECT nspname, bool_or(pg_namespace.oid = relnamespace) AS of_table
			FROM pg_class
			JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
			CROSS JOIN LATERAL (
				WITH RECURSIVE types AS (
					SELECT typnamespace, typbasetype FROM pg_type WHERE oid = atttypid
					UNION ALL
					SELECT base.typnamespace, base.typbasetype FROM types JOIN pg_type base ON base.oid = types.typbasetype)
				SELECT typnamespace FROM types) AS t
			JOIN pg_namespace ON pg_namespace.oid IN (relnamespace, typnamespace)
			WHERE pg_class.oid = {{'table'}}::regclass AND nspname <> 'pg_catalog'
			GROUP BY nspname) AS schemas)`
		// Classes of errors that are not about one row: retry, privileges and syntax, resources, system, internal.
		notWritten = `IF left(SQLSTATE, 2) IN ('40', '42', '53', '58', 'XX') THEN
				RAISE;
			END IF;
			RAISE WARNING USING MESSAGE = format('clerkinvite: the row of member %s in tenant %s was not written: %s', member.id, member.tenant_id, SQLERRM);`
	)
	// person can join tables whose IDs are not UUIDs, and occupant uses the index of the members.
	person, occupant := "false", "false"
	if m.MemberID != "" {
		person, occupant = "a.{{id}}::text = m.id::text", "m.id = a.{{id}}::text::uuid"
	} else if m.ClerkUserID != "" {
		person, occupant = sameUser, sameUser
	}
	isEqual, isPresent := []string{sameKey}, []string(nil)
	variables := []string{"old_tenant_id {{table}}.{{tenant_id}}%TYPE;", "old_email {{table}}.{{email}}%TYPE;"}
	var all, allNames, assign, names, values, sets, leftSets []string
	for _, c := range m.columns() {
		name, value, text := "{{"+c.member+"}}", "clerkinvite_mirror.new_"+c.member, "a.{{"+c.member+`}}::text COLLATE "C"`
		if c.field == "LeftColumn" {
			value = "{{present value}}"
		} else {
			variables = append(variables, "new_"+c.member+" {{table}}."+name+"%TYPE;")
			assign = append(assign, "new_"+c.member+" := {{row}}."+c.member+";")
		}
		all, allNames = append(all, "a."+name), append(allNames, "{{'"+c.member+"'}}")
		set := name + " = " + value
		switch c.field {
		case "ClerkUserID":
			isEqual = append(isEqual, text+" IS NOT DISTINCT FROM m.clerk_user_id")
			leftSets = append(leftSets, name+" = 'left_' || {{row}}.id")
		case "Status":
			isEqual = append(isEqual, text+" = m.status")
			leftSets = append(leftSets, set)
		case "Role":
			isEqual = append(isEqual, "(m.role IS NULL OR "+text+" = m.role)")
			set = name + " = coalesce(" + value + ", a." + name + ")"
		case "MemberID":
			isEqual = append(isEqual, text+" = m.id::text")
		case "LeftColumn":
			present := "a." + name + " IS NOT DISTINCT FROM {{present value}}"
			isEqual, isPresent = append(isEqual, present), append(isPresent, present)
			leftSets = append(leftSets, name+" = {{left value}}")
		}
		sets = append(sets, set)
		if c.field != "Role" { // a second INSERT follows, with the role
			names, values = append(names, name), append(values, value)
		}
	}

	is := func(row string, in []Status) string {
		return fmt.Sprintf("%s.status = ANY ('{%s}')", row, joined(in, ","))
	}
	insert := func(names, values []string) string {
		return fmt.Sprintf("\tINSERT INTO {{table}} (%s) VALUES (%s);", joined(names, ", "), joined(values, ", "))
	}
	put := append(slices.Clone(assign),
		`IF new_tenant_id::text COLLATE "C" <> {{row}}.tenant_id THEN`,
		"	RAISE data_exception USING MESSAGE = 'clerkinvite: the tenant is not written as PostgreSQL prints it in the mirrored table';",
		"END IF;",
		"UPDATE {{table}} AS a SET "+joined(sets, ", "),
		atKey+";")
	leave := []string{"DELETE FROM {{table}} AS a " + atKey + ";"}
	clearRole, erased := "", is("OLD", shown)
	if m.Role == "" {
		put = append(put, "IF NOT FOUND THEN", insert(names, values), "END IF;")
	} else {
		put = append(put, "IF NOT FOUND AND {{row}}.role IS NULL THEN", insert(names, values),
			"ELSIF NOT FOUND THEN", insert(append(names, "{{role}}"), append(values, "clerkinvite_mirror.new_role")), "END IF;")
		clearRole = "IF " + is("OLD", shown) + " AND OLD.role IS NOT NULL AND NEW.role IS NULL THEN\n\t\t\t" +
			"UPDATE {{table}} AS a SET {{role}} = DEFAULT " + atKey + ";\n\t\tEND IF;\n\t\t"
	}
	if m.LeftColumn != "" {
		leave = slices.Concat(assign, []string{"UPDATE {{table}} AS a SET " + joined(leftSets, ", "), atKey + ";"})
		switch { // the row that stayed when the member left, and not the host's
		case m.ClerkUserID != "":
			erased += ` OR a.{{clerk_user_id}}::text COLLATE "C" = 'left_' || OLD.id`
		case m.MemberID != "":
			erased += ` OR a.{{id}}::text COLLATE "C" = OLD.id::text`
		default:
			erased += " OR a.{{left}} IS DISTINCT FROM {{present value}}"
		}
	}
	block := func(lines []string, row string) string {
		return strings.ReplaceAll(joined(lines, "\n\t\t"), "{{row}}", row)
	}
	missing := is("m", shown) + " AND NOT EXISTS (\n\t\tSELECT FROM {{table}} AS a\n\t\tWHERE " + joined(isEqual, "\n\t\t\tAND ") + ")"
	leftOver := is("m", left) + " AND EXISTS (\n\t\tSELECT FROM {{table}} AS a\n\t\tWHERE " + joined(append([]string{sameKey}, isPresent...), "\n\t\t\tAND ") + ")"
	leftRows, noMember, wasMember := "SELECT m.*, m.email AS row_email FROM {{member}} m WHERE "+leftOver, "false", "false"
	if m.ClerkUserID != "" {
		// The member at the row's address, or the member with its user, is compared by the other conditions.
		noMember = joined(append([]string{
			`a.{{tenant_id}} IS NOT NULL AND a.{{clerk_user_id}}::text COLLATE "C" ~ '^(user|pending)_'`,
			"NOT EXISTS (SELECT FROM {{member}} m WHERE " + sameKey + " AND (" + is("m", slices.Concat(left, shown)) + " OR " + sameUser + "))",
			`NOT EXISTS (SELECT FROM {{member}} m WHERE a.{{tenant_id}}::text COLLATE "C" = m.tenant_id AND ` + sameUser + " AND " + missing + ")",
		}, isPresent...), "\n\t\tAND ")
		const former = `{{history}} h JOIN {{member}} m ON (m.tenant_id, m.id) = (h.tenant_id, h.member_id)`
		isFormer := is("m", left) + " AND NOT EXISTS (SELECT FROM {{member}} c WHERE (c.tenant_id, c.clerk_user_id) = (h.tenant_id, h.clerk_user_id))"
		wasMember = `(a.{{tenant_id}}::text COLLATE "C", a.{{clerk_user_id}}::text COLLATE "C") IN (SELECT h.tenant_id, h.clerk_user_id FROM ` + former + " WHERE " + isFormer + ")"
		leftRows += `
		UNION ALL (SELECT DISTINCT ON (m.tenant_id, row_email) m.*, a.{{email}}::text COLLATE "C" AS row_email FROM {{table}} AS a
			JOIN ` + former + `
			ON h.tenant_id = a.{{tenant_id}}::text COLLATE "C" AND h.clerk_user_id = a.{{clerk_user_id}}::text COLLATE "C"
			WHERE ` + isFormer + " AND " + noMember + ")"
	}
	return strings.NewReplacer(
		"{{variables}}", joined(variables, "\n\t"), "{{at key}}", atKey, "{{erased}}", erased, "{{clear role}}", clearRole,
		"{{same key}}", sameKey, "{{same person}}", person, "{{occupant}}", "m.tenant_id = clerkinvite_mirror.moved.tenant_id AND "+occupant, "{{not written}}", notWritten,
		"{{schemas}}", schemas, "{{not normalised}}", notNormalised, "{{guard}}", strings.NewReplacer("{{columns}}", joined(all, ", "), "{{'columns'}}", joined(allNames, ", ")).Replace(guard),
		"{{missing}}", missing, "{{left over}}", leftOver, "{{left rows}}", leftRows, "{{no member}}", noMember, "{{was member}}", wasMember,
		"{{is shown m}}", is("m", shown), "{{is shown NEW}}", is("NEW", shown), "{{is shown OLD}}", is("OLD", shown),
		"{{put NEW}}", block(put, "NEW"), "{{put member}}", block(put, "member"),
		"{{leave NEW}}", block(leave, "NEW"), "{{leave member}}", block(leave, "member"),
	)
}

// joined is strings.Join for any string type.
func joined[T ~string](list []T, separator string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// sqlName quotes a name, given by its parts, for SQL.
func sqlName(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// sqlText quotes a string constant for SQL, for either setting of standard_conforming_strings.
func sqlText(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
