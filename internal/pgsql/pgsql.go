// Package pgsql has the SQL statements of clerkinvite.PgxStore, one in each file.
//
// Each statement gets its rows as one parameter, JSON text, because every execution mode of pgx sends
// text in the same way, and no codec of the host changes it. Values to compare with come from a join or
// a (SELECT …). With plain parameters PostgreSQL would plan the statement at each call, which costs more
// than running it. Conditions of partial indexes are literals, because otherwise a generic plan could
// not use the index. Some of these conditions are true for every row; see the migration.
//
// A part_*.sql is not a statement. It replaces a placeholder such as {{member}}.
package pgsql

import (
	"embed"
	"strconv"
	"strings"
)

//go:embed *.sql
var files embed.FS

// Statements are the statements for one schema, each without its comments.
type Statements struct {
	InsertSQL, UpdateSQL, EraseSQL, MadeSQL, GoneSQL, TakenSQL string
	FindRefsSQL, FindRefIDsSQL, FindRefUsersSQL                string
	FindIDsSQL, FindEmailsSQL, FindUsersSQL                    string
	DueSQL                                                     string
	PageAllSQL                                                 string
	OldestFirst, NewestFirst                                   TenantPages
	CountsSQL, HistorySQL, BacklogSQL                          string
	TimeReadSQL, TimeNewSQL, TimeSwapSQL                       string
}

// TenantPages are the statements for pages of a tenant, in one order.
type TenantPages struct{ TenantSQL, StatusSQL, PrefixSQL string }

// Load returns the statements for a schema. table returns the name of a table in that schema as
// SQL; nil leaves the tables to the search_path.
func Load(table func(name string) string) *Statements {
	pairs := []string{"{{member}}", read("part_member"), "{{input}}", read("part_input"), "{{changed}}", read("part_changed"), "{{page}}", read("part_page")}
	parts := strings.NewReplacer(pairs...)
	var tables []string
	for _, name := range []string{"clerkinvite_member", "clerkinvite_history", "clerkinvite_limit"} {
		if table != nil {
			tables = append(tables, name, table(name))
		}
	}
	schema := strings.NewReplacer(tables...)
	sql := func(name string) string { return schema.Replace(parts.Replace(read(name))) }
	pages := func(order ...string) TenantPages {
		ordered := strings.NewReplacer(order...)
		return TenantPages{ordered.Replace(sql("page_tenant")), ordered.Replace(sql("page_status")), ordered.Replace(sql("page_prefix"))}
	}
	return &Statements{
		InsertSQL:       sql("insert"),
		UpdateSQL:       sql("update"),
		EraseSQL:        sql("erase"),
		MadeSQL:         sql("made"),
		GoneSQL:         sql("gone"),
		TakenSQL:        sql("taken"),
		FindRefsSQL:     sql("find_refs"),
		FindRefIDsSQL:   sql("find_ref_ids"),
		FindRefUsersSQL: sql("find_ref_users"),
		FindIDsSQL:      sql("find_ids"),
		FindEmailsSQL:   sql("find_emails"),
		FindUsersSQL:    sql("find_users"),
		DueSQL:          sql("due"),
		PageAllSQL:      sql("page_all"),
		OldestFirst:     pages("{{after}}", ">", "{{up to}}", "<=", "{{direction}}", "ASC"),
		NewestFirst:     pages("{{after}}", "<", "{{up to}}", ">=", "{{direction}}", "DESC"),
		CountsSQL:       sql("counts"),
		HistorySQL:      sql("history"),
		BacklogSQL:      sql("backlog"),
		TimeReadSQL:     sql("time_read"),
		TimeNewSQL:      sql("time_new"),
		TimeSwapSQL:     sql("time_swap"),
	}
}

// read returns a file without its head, the comment lines.
func read(name string) string {
	b, err := files.ReadFile(name + ".sql")
	if err != nil {
		panic(err) // a name in this package is wrong
	}
	sql := string(b)
	for strings.HasPrefix(sql, "--") {
		_, sql, _ = strings.Cut(sql, "\n")
	}
	return strings.TrimSpace(sql)
}

// WithLimit returns sql for at least limit rows.
//
// The real limit is a parameter. The additional literal LIMIT is for the planner, which would otherwise
// expect a tenth of all matching rows. With millions of them, PostgreSQL would compile the statement at
// each call (jit_above_cost).
func WithLimit(sql string, limit int) string {
	return strings.ReplaceAll(sql, "LIMIT 1001", "LIMIT "+strconv.Itoa(max(limit, 1001)))
}
