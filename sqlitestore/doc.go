// Package sqlitestore keeps the members of clerkinvite in one SQLite file, without a server to install and
// without cgo. It is for demos, for hosts that come as a single program, and for small ones on a single
// machine.
//
//	store, err := sqlitestore.Open("/var/lib/host/clerkinvite.db")
//	…
//	defer store.Close()
//	if err := store.Migrate(ctx); err != nil { // makes the file and its tables
//		…
//	}
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store})
//
// It keeps the same promises as clerkinvite.PgxStore: its unique keys decide who was first, each change is a compare-and-set of
// the version, the history is written in the transaction of the move, CHECKs refuse rows that make no sense, and a write is on the
// disk before it is answered. Several processes of one machine may share the file. [Store.WithTx] reserves
// in a transaction of the host's ([Store.Begin]), whose own tables may be in the same file.
//
// # Where PostgreSQL begins
//
// Use PostgreSQL and clerkinvite.PgxStore if there is more than one machine. SQLite's locks and its shared memory work
// between processes of one kernel: on a network file system (NFS, SMB, most volumes that several
// containers on different nodes mount) they do not, and the file gets damaged.
//
// SQLite has one writer at a time. Readers do not wait for it, nor it for them, but every writer waits for the one before
// it, the host's own transactions on the file included. The benchmarks of this package
//
//	go test -run '^$' -bench . -benchtime 2s
//
// reserved 560 members a second one by one, 4,700 a second in batches of a thousand, and invited 500 a second with a fake of Clerk
// that answers at once. That was on two cores of a shared server that had other work to do, with an ext4 file system.
// Clerk's own documented limits are at 350 invitations an hour.
//
// There is no PgxOptions.OnChange here, and no Validate: Migrate is the only way to the tables.
//
// # Looking after the file
//
// It holds addresses, and links of invitations that the host mails itself (SkipEmail). A file that Migrate makes is readable for its
// owner only; one that was there before keeps its permissions. SQLite gives those of the file to the two beside it.
// What is erased is overwritten in the file; beside it, in the write-ahead log, it can be read until that is
// written again or the last process closes the file.
//
// While the file is open, a copy of it is no backup. "VACUUM INTO '/backup/clerkinvite.db'" makes one, by any connection to it. SQLite
// makes that file with the permissions that the umask leaves, so that others can read it as a rule: let there be an empty file
// of that name first that only its owner can read, and SQLite writes into it.
//
// To put a backup back, end all processes that have the file open, remove path-wal and path-shm, which one that was killed
// leaves behind, and then put the backup in the place of the file: with the old log beside it, SQLite would write that into it and
// damage it, which nothing but "PRAGMA integrity_check" would say. Migrate switches it to write-ahead logging again. What has happened
// since, at Clerk too, is not in it.
//
// A process that has the file open must not open and close it in another way, as os.ReadFile does: on POSIX systems that gives up
// the locks of all its connections.
package sqlitestore
