// Package sqlitestore stores the members of clerkinvite in one SQLite file, without a server and
// without cgo. It is for demos, for applications that are a single program, and for small
// applications on a single machine.
//
//	store, err := sqlitestore.Open("/var/lib/host/clerkinvite.db")
//	…
//	defer store.Close()
//	if err := store.Migrate(ctx); err != nil { // creates the file and its tables
//		…
//	}
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//
// It keeps the same promises as clerkinvite.PgxStore. Unique keys decide which insert was first, and
// CHECK constraints reject invalid rows. Each change is a compare-and-swap of the version, and writes
// its history in the same transaction. A write is on disk before the call returns. Several
// processes on one machine may share the file. [Store.WithTx] reserves in your own transaction
// ([Store.Begin]). Your own tables may be in the same file.
//
// # When to use PostgreSQL
//
// Use PostgreSQL and clerkinvite.PgxStore if there is more than one machine. SQLite's locks and
// shared memory work only between processes of one kernel. On a network file system (NFS, SMB,
// most volumes that containers on different nodes mount) they do not work, and the file gets
// corrupted.
//
// SQLite has one writer at a time. Readers and the writer do not wait for each other, but each
// writer waits for the previous one, including your own transactions on the file. The benchmarks
//
//	go test -C sqlitestore -run '^$' -bench . -benchtime 2s
//
// reserved 560 members per second one by one, 4,700 per second in batches of a thousand, and
// invited 500 per second with a fake Clerk that responds immediately. That was on two cores of a
// busy shared server, with an ext4 file system. Clerk's documented limits allow 350 invitations
// per hour.
//
// There is no PgxOptions.OnChange and no Validate: only Migrate creates the tables.
//
// # Looking after the file
//
// The file contains addresses, and links of invitations that you mail yourself (SkipEmail). If
// Migrate creates the file, only its owner can read it; an existing file keeps its permissions.
// SQLite gives path-wal and path-shm the permissions of the file. Erased data is overwritten in the
// file. In the write-ahead log it stays readable until that part of the log is reused or the last
// process closes the file.
//
// A copy of the file is not a backup while the file is open. "VACUUM INTO '/backup/clerkinvite.db'"
// creates one, on any connection to the file. SQLite creates the backup with umask permissions,
// usually world-readable. First create an empty file of that name that only its owner can read;
// SQLite then writes into it.
//
// To restore a backup, end all processes that have the file open, remove path-wal and path-shm (a
// killed process leaves them behind), and then replace the file. With the old log beside it, SQLite
// would apply that log and corrupt the file, and only "PRAGMA integrity_check" would show it.
// Migrate enables write-ahead logging again. A backup lacks everything that has happened since,
// including at Clerk; see "A restored backup" in docs/runbook.md.
//
// A process that has the file open must not open and close it by other means, such as os.ReadFile:
// on POSIX systems that releases the locks of all its connections.
package sqlitestore
