// Package postgres has only tests. They run the library on databases that fail (failovers, crashes, cut networks) and on
// other kinds of databases (PgBouncer, every supported version of PostgreSQL, partitioned tables).
//
// CLERKINVITE_TEST_PGBINS names the versions, each with the directory of its initdb and postgres: "14=/some/bin:18=/another/bin".
// scripts/fetch-postgres.sh downloads them.
package postgres
