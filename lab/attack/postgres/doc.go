// Package postgres holds no code, only tests: the library on databases that fail and on databases of other kinds. Failovers, crashes,
// cut networks, PgBouncer, the versions of PostgreSQL that are supported, partitioned tables.
//
// CLERKINVITE_TEST_PGBINS names the versions, each with the directory of its initdb and postgres: "14=/some/bin:18=/another/bin".
// scripts/fetch-postgres.sh gets them.
package postgres
