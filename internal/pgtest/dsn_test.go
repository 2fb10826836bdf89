package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p@h:5433/old?sslmode=disable":            "postgres://u:p@h:5433/new?sslmode=disable",
		"postgresql://u:p@h":                                   "postgresql://u:p@h/new",
		"postgres://h/":                                        "postgres://h/new",
		"postgres://h?sslmode=disable":                         "postgres://h/new?sslmode=disable",
		"postgres://h/old?dbname=older&application_name=a%26b": "postgres://h/new?application_name=a%26b",
		"postgres://h/old?database=older":                      "postgres://h/new",
		"postgres:///old?host=/run/pg&port=5434":               "postgres:///new?host=/run/pg&port=5434",
		"postgres://u:p%2F%3F%40@h/old":                        "postgres://u:p%2F%3F%40@h/new",
		"postgres://u@h1:5433,h2:5434/old":                     "postgres://u@h1:5433,h2:5434/new",
		"postgres://u@[::1]:5433/old":                          "postgres://u@[::1]:5433/new",
		"host=h dbname=old user=u":                             "host=h dbname=old user=u dbname=new",
		"host=h password='a b\\'c' dbname='o l d'":             "host=h password='a b\\'c' dbname='o l d' dbname=new",
		"host=/run/pg database=old":                            "host=/run/pg database=old dbname=new",
		" dbname=old ":                                         " dbname=old  dbname=new",
	} {
		got, err := withDatabase(dsn, "new")
		require.NoError(t, err, dsn)
		require.Equal(t, want, got)
		before, err := pgx.ParseConfig(dsn)
		require.NoError(t, err)
		after, err := pgx.ParseConfig(got)
		require.NoError(t, err)
		require.Equal(t, "new", after.Database)
		require.Len(t, after.Fallbacks, len(before.Fallbacks), dsn)
		require.Equal(t, before.Host, after.Host)
		require.Equal(t, before.RuntimeParams, after.RuntimeParams)
	}
}

func TestWithDatabaseRefusesWhatItCannotEdit(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		`host=h password=a\`, // the backslash would take the space that separates the next keyword
		"host=h 'broken",
		"postgres://h:port/old",
	} {
		_, err := withDatabase(dsn, "new")
		require.Error(t, err, dsn)
	}
}
