package pgtest

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// withDatabase returns the connection string for another database. It edits the string, because pgx's parsed configuration does not
// contain certificates, several hosts, a service or a password file in their original form.
func withDatabase(dsn, name string) (string, error) {
	before, err := pgx.ParseConfig(dsn)
	if err != nil {
		return "", err
	}
	edited := withDatabaseKeyword(dsn, name)
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		edited = withDatabaseURL(dsn, name)
	}
	// The two grammars have quotes, escapes and precedence, so check the result.
	after, err := pgx.ParseConfig(edited)
	if err != nil || after.Database != name || after.Host != before.Host || after.Port != before.Port ||
		after.User != before.User || after.Password != before.Password {
		return "", fmt.Errorf("the database name in this connection string cannot be replaced by %q; write it as postgres://user:password@host:port/name", name)
	}

	return edited, nil
}

// withDatabaseKeyword edits "host=… dbname=…". The last of several equal keywords counts.
func withDatabaseKeyword(dsn, name string) string {
	return dsn + " dbname=" + name
}

// withDatabaseURL edits "postgres://authority/name?parameters", in which a parameter dbname overrides the path. net/url rejects the
// ports of several hosts.
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
