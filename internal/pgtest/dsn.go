package pgtest

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// withDatabase returns the connection string with another database in it. It edits the string instead of writing a new one
// from what pgx understood: certificates, several hosts, a service or a password file cannot be got back out of a parsed
// configuration, and a child process needs them as much as this one.
func withDatabase(dsn, name string) (string, error) {
	before, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", err
	}
	edited := withDatabaseKeyword(dsn, name)
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		edited = withDatabaseURL(dsn, name)
	}
	// Two grammars with quotes, escapes and precedence: rather than be sure, look.
	after, err := pgx.ParseConfig(edited)
	if err != nil || after.Database != name || after.Host != before.Host || after.Port != before.Port ||
		after.User != before.User || after.Password != before.Password {
		return "", fmt.Errorf("the database name in this connection string cannot be replaced by %q; write it as postgres://user:password@host:port/name", name)
	}

	return edited, nil
}

// withDatabaseKeyword works on "host=… dbname=…". Of two equal keywords the later one counts.
func withDatabaseKeyword(dsn, name string) string {
	return dsn + " dbname=" + name
}

// withDatabaseURL works on "postgres://authority/name?parameters", where a parameter dbname beats the path. net/url is no help:
// it does not like the ports of several hosts.
func withDatabaseURL(dsn, name string) string {
	rest, query, _ := strings.Cut(dsn, "?")
	scheme, rest, _ := strings.Cut(rest, "://")
	authority, _, _ := strings.Cut(rest, "/")
	var kept []string
	for param := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(param, "=")
		if param != "" && key != "dbname" && key != "database" {
			kept = append(kept, param)
		}
	}
	edited := scheme + "://" + authority + "/" + name
	if len(kept) > 0 {
		edited += "?" + strings.Join(kept, "&")
	}

	return edited
}
