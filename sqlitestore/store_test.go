package sqlitestore_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
	"github.com/clerkinvite/clerkinvite/storetest"
)

// open opens the file, and closes it after the test.
func open(t testing.TB, path string) *sqlitestore.Store {
	t.Helper()
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	require.NoError(t, store.Migrate(t.Context()))
	return store
}

func newStore(t testing.TB) *sqlitestore.Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "clerkinvite.db"))
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) clerkinvite.Store { return refusing{newStore(t)} })
}

// refusing is a store of the suite.
type refusing struct{ *sqlitestore.Store }

// Refuse lets the suite check that a refused row fails alone.
func (s refusing) Refuse(ctx context.Context, tenantID string) error {
	for write, row := range map[string]string{"INSERT": "new", "UPDATE": "new", "DELETE": "old"} {
		if _, err := s.DB().ExecContext(ctx, fmt.Sprintf(`CREATE TRIGGER refuse_%s BEFORE %[1]s ON clerkinvite_member WHEN %s.tenant_id = '%s'
			BEGIN SELECT RAISE(ABORT, 'refused'); END`, write, row, tenantID)); err != nil {
			return err
		}
	}
	return nil
}

// Rows are found after a restart.
func TestRowsOutliveTheStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	first, err := sqlitestore.Open(path)
	require.NoError(t, err)
	require.NoError(t, first.Migrate(t.Context()))
	written, err := insertNew(t.Context(), first, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	require.NoError(t, first.Close())

	second := open(t, path)
	found, err := second.Find(t.Context(), clerkinvite.Query{Refs: []clerkinvite.Ref{written[0].Ref()}})
	require.NoError(t, err)
	require.Equal(t, written, found)
}

func TestOpenTakesThePathOfAFile(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", ":memory:", "file:x.db", "x\x00y"} {
		_, err := sqlitestore.Open(path)
		require.ErrorContains(t, err, "path of a file", "%q", path)
	}
	for _, name := range []string{"plain.db", "with space", "a?b#c%41&mode=memory", "ünï'\"", ".hidden"} {
		path := filepath.Join(t.TempDir(), name)
		store := open(t, path)
		_, err := insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
		require.NoError(t, err, name)
		require.FileExists(t, path)
	}
}

// Open creates no file. Without a file, calls return an error that says what to do, instead of using an empty database.
func TestNoFileBeforeMigrate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	defer store.Close()
	_, err = store.Due(t.Context(), clerkinvite.DueQuery{At: testTime})
	require.ErrorContains(t, err, "Migrate creates the file")
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.ErrorContains(t, err, "Migrate creates the file")
	require.NoFileExists(t, path)
}

// The tables reject inconsistent rows, and only those rows of a batch.
func TestInvalidRowsAreRejected(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	for what, spoil := range map[string]func(m *clerkinvite.Member){
		"no tenant":                  func(m *clerkinvite.Member) { m.TenantID = "" },
		"long tenant":                func(m *clerkinvite.Member) { m.TenantID = strings.Repeat("é", 128) },
		"not a UUID":                 func(m *clerkinvite.Member) { m.ID = "member_1" },
		"nearly a UUID":              func(m *clerkinvite.Member) { m.ID = "g" + m.ID[1:] },
		"dash in a UUID":             func(m *clerkinvite.Member) { m.ID = "-" + m.ID[1:] },
		"not an address":             func(m *clerkinvite.Member) { m.Email = "ada" },
		"address not normalised":     func(m *clerkinvite.Member) { m.Email = "Ada@example.com" },
		"long address":               func(m *clerkinvite.Member) { m.Email = strings.Repeat("a", 250) + "@example.com" },
		"unknown state":              func(m *clerkinvite.Member) { m.Status = "lost" },
		"reserved with a user":       func(m *clerkinvite.Member) { m.ClerkUserID = "user_1" },
		"reserved and not due":       func(m *clerkinvite.Member) { m.NextAttemptAt = nil },
		"reserved and sent":          func(m *clerkinvite.Member) { m.Sent = 1 },
		"no send":                    func(m *clerkinvite.Member) { m.Send = 0 },
		"negative attempts":          func(m *clerkinvite.Member) { m.Attempts = -1 },
		"pending without invitation": func(m *clerkinvite.Member) { *m = *pending(m); m.InvitationID = "" },
		"pending ID of another":      func(m *clerkinvite.Member) { *m = *pending(m); m.ClerkUserID = "pending_inv_2" },
		"pending with a user":        func(m *clerkinvite.Member) { *m = *pending(m); m.ClerkUserID = "user_1" },
		"due without a time":         func(m *clerkinvite.Member) { *m = *pending(m); m.Send = 2 },
		"active without a user":      func(m *clerkinvite.Member) { *m = *pending(m); m.Status, m.ClerkUserID = "active", "" },
		"active with a pending ID":   func(m *clerkinvite.Member) { *m = *pending(m); m.Status = "active" },
		"revoked with a user":        func(m *clerkinvite.Member) { *m = *pending(m); m.Status = "revoked" },
		"link without pending":       func(m *clerkinvite.Member) { m.URL = clerkinvite.NewSecret("https://example.com/accept") },
		"long role":                  func(m *clerkinvite.Member) { m.Role = strings.Repeat("x", 1025) },
		"long inviter":               func(m *clerkinvite.Member) { m.InvitedBy = strings.Repeat("x", 1025) },
		"long actor":                 func(m *clerkinvite.Member) { m.ChangedBy = strings.Repeat("x", 1025) },
		"long reason":                func(m *clerkinvite.Member) { m.Reason = strings.Repeat("x", 1025) },
		"data that is not JSON":      func(m *clerkinvite.Member) { m.Data = []byte(`{"a":`) },
		"params that are not JSON":   func(m *clerkinvite.Member) { m.Params = []byte(`{'a':1}`) },
		"text that is not UTF-8":     func(m *clerkinvite.Member) { m.Role = "\xff" },
		"text with a zero byte":      func(m *clerkinvite.Member) { m.InvitedBy = "a\x00b" },
		"long invitation ID":         func(m *clerkinvite.Member) { m.InvitationID = strings.Repeat("x", 248) },
	} {
		bad := reserved("acme", "bad@example.com")
		spoil(bad)
		results, err := store.Insert(t.Context(), []*clerkinvite.Member{reserved("acme", "before@example.com"), bad, reserved("acme", "after@example.com")})
		require.NoError(t, err, what)
		require.NoError(t, results[0].Err, what)
		require.Error(t, results[1].Err, what)
		require.NoError(t, results[2].Err, what)
		_, err = store.Update(t.Context(), []clerkinvite.Change{{Old: results[0].Member}, {Old: results[2].Member}})
		require.NoError(t, err, what)
	}
	found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.Empty(t, found)

	good, err := insertNew(t.Context(), store, reserved("acme", "good@example.com"), reserved("acme", "other@example.com"))
	require.NoError(t, err)
	worse := *good[1]
	worse.Status = "lost"
	results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: good[0], New: pending(good[0])}, {Old: good[1], New: &worse}})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	require.ErrorContains(t, results[1].Err, "clerkinvite_member_status_check")
	found, err = store.Find(t.Context(), clerkinvite.Query{IDs: []string{good[0].ID, good[1].ID}})
	require.NoError(t, err)
	require.ElementsMatch(t, []*clerkinvite.Member{results[0].Member, good[1]}, found)
}

// A host's trigger that refuses one tenant's members does not delay another tenant's. A deferred foreign key is checked at
// the commit.
func TestRefusedRowsFailAlone(t *testing.T) {
	t.Parallel()
	for what, schema := range map[string]string{
		"a trigger raises": `CREATE TRIGGER refuses BEFORE UPDATE ON clerkinvite_member WHEN new.tenant_id = 'bad' BEGIN SELECT RAISE(ABORT, 'refused'); END`,
		"a trigger fails":  `CREATE TRIGGER refuses BEFORE UPDATE ON clerkinvite_member WHEN new.tenant_id = 'bad' BEGIN SELECT abs(-9223372036854775807 - 1); END`,
		"a deferred foreign key": `
CREATE TABLE customer (id TEXT PRIMARY KEY);
INSERT INTO customer VALUES ('good');
CREATE TABLE audit (tenant_id TEXT REFERENCES customer DEFERRABLE INITIALLY DEFERRED);
CREATE TRIGGER audits AFTER UPDATE ON clerkinvite_member BEGIN INSERT INTO audit VALUES (new.tenant_id); END`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			store, clerk := newStore(t), clerkinvitetest.NewClerk()
			svc := newService(t, store, clerk)
			var params []clerkinvite.InviteParams
			for i := range 5 {
				for _, tenant := range []string{"bad", "good"} {
					params = append(params, clerkinvite.InviteParams{TenantID: tenant, Email: fmt.Sprintf("%s%d@example.com", tenant, i)})
				}
			}
			_, err := svc.ReserveMany(t.Context(), params)
			require.NoError(t, err)
			_, err = store.DB().ExecContext(t.Context(), schema)
			require.NoError(t, err)
			report, _ := svc.Deliver(t.Context(), nil)
			require.Equal(t, []int{5, 5}, []int{report.Invited, clerk.Emails()})
		})
	}
}

// If another member has the ID or the user, only that row is not written.
func TestInsertWithAnotherMembersID(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	old, err := insertNew(t.Context(), store, pending(reserved("acme", "ada@example.com")))
	require.NoError(t, err)
	sameID, sameUser := reserved("acme", "grace@example.com"), pending(reserved("acme", "joan@example.com"))
	sameID.ID = old[0].ID
	sameUser.InvitationID, sameUser.ClerkUserID = old[0].InvitationID, old[0].ClerkUserID
	results, err := store.Insert(t.Context(), []*clerkinvite.Member{sameID, reserved("acme", "new@example.com"), sameUser})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)
	require.NoError(t, results[1].Err)
	require.ErrorIs(t, results[2].Err, clerkinvite.ErrUserTaken)
}

// Waiting for another process's lock ends with the context.
func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store, other := open(t, path), open(t, path)
	m, err := insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	tx, err := other.DB().BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()

	_, err = store.Find(t.Context(), clerkinvite.Query{IDs: []string{m[0].ID}})
	require.NoError(t, err, "reads do not wait")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = store.Insert(ctx, []*clerkinvite.Member{reserved("acme", "grace@example.com")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = store.Update(ctx, []clerkinvite.Change{{Old: m[0], New: pending(m[0])}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = store.SwapTime(ctx, "create", time.Time{}, testTime)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, tx.Rollback())
	_, err = insertNew(t.Context(), store, reserved("acme", "grace@example.com"))
	require.NoError(t, err, "the connection still works")
}

// Erased members and cleared links can no longer be read from the file.
func TestErasedIsOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store, err := sqlitestore.Open(path)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	linked := pending(reserved("acme", "kept@example.com"))
	linked.URL = clerkinvite.NewSecret("https://example.com/accept?ticket=secretticket")
	rows, err := insertNew(t.Context(), store, reserved("acme", "erased@example.com"), linked)
	require.NoError(t, err)
	active := *rows[1]
	active.Status, active.ClerkUserID, active.URL = clerkinvite.StatusActive, "user_1", clerkinvite.Secret{}
	results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: rows[0]}, {Old: rows[1], New: &active}})
	require.NoError(t, err)
	require.NoError(t, results[1].Err)
	require.NoError(t, store.Close())

	content, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Contains(t, string(content), "kept@example.com")
	assert.NotContains(t, string(content), "erased@example.com")
	assert.NotContains(t, string(content), "secretticket")
	require.NoFileExists(t, path+"-wal")
}

func newService(t testing.TB, store clerkinvite.Store, clerk *clerkinvitetest.Clerk) *clerkinvite.Service {
	t.Helper()
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store})
	require.NoError(t, err)
	return svc
}

// A member is reserved if and only if the host's row is written.
func TestReserveInHostTransaction(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	svc := newService(t, store, clerkinvitetest.NewClerk())
	_, err := store.DB().ExecContext(t.Context(), "CREATE TABLE seat (email TEXT PRIMARY KEY)")
	require.NoError(t, err)
	taken, err := insertNew(t.Context(), store, reserved("acme", "taken@example.com"))
	require.NoError(t, err)

	for _, end := range []func(*sql.Tx) error{(*sql.Tx).Rollback, (*sql.Tx).Commit} {
		tx, err := store.DB().BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "INSERT INTO seat VALUES ('ada@example.com')")
		require.NoError(t, err)
		reserver := svc.InTx(store.WithTx(tx))
		m, err := reserver.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "Ada@example.com"})
		require.NoError(t, err)
		require.Equal(t, "ada@example.com", m.Email)
		for _, email := range []string{"taken@example.com", "ada@example.com"} { // committed; written in tx
			var dup *clerkinvite.DuplicateEmailError
			_, err = reserver.Reserve(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
			require.ErrorAs(t, err, &dup, email)
		}
		found, err := store.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
		require.NoError(t, err)
		require.Empty(t, found, "not visible before the commit")
		require.NoError(t, end(tx))
	}
	var seats int
	require.NoError(t, store.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM seat").Scan(&seats))
	require.Equal(t, 1, seats)
	found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Contains(t, found, taken[0])
	report, err := svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, report.Invited)
}

// A refused row, and a call that fails, write nothing in the host's transaction. The other rows and the host's rows stay.
func TestFailureInHostTransaction(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	old, err := insertNew(t.Context(), store, reserved("acme", "old@example.com"), reserved("acme", "other@example.com"))
	require.NoError(t, err)
	_, err = store.DB().ExecContext(t.Context(), "CREATE TABLE seat (n INTEGER)")
	require.NoError(t, err)
	tx, err := store.DB().BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(t.Context(), "INSERT INTO seat VALUES (1)")
	require.NoError(t, err)
	inTx := store.WithTx(tx)

	bad := reserved("acme", "bad@example.com")
	bad.NextAttemptAt = nil
	inserted, err := inTx.Insert(t.Context(), []*clerkinvite.Member{reserved("acme", "good@example.com"), bad})
	require.NoError(t, err)
	require.NoError(t, inserted[0].Err)
	require.ErrorContains(t, inserted[1].Err, "clerkinvite_member_due_check")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = inTx.Insert(ended, []*clerkinvite.Member{reserved("acme", "late@example.com")})
	require.ErrorIs(t, err, context.Canceled)

	users := []clerkinvite.Change{{Old: old[0], New: pending(old[0])}, {Old: old[1], New: pending(old[1])}}
	users[1].New.InvitationID, users[1].New.ClerkUserID = users[0].New.InvitationID, users[0].New.ClerkUserID
	results, err := inTx.Update(t.Context(), users)
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	require.ErrorIs(t, results[1].Err, clerkinvite.ErrUserTaken)
	require.NoError(t, tx.Commit())

	found, err := store.Page(t.Context(), clerkinvite.PageQuery{})
	require.NoError(t, err)
	require.ElementsMatch(t, []*clerkinvite.Member{results[0].Member, old[1], inserted[0].Member}, found)
	var seats int
	require.NoError(t, store.DB().QueryRowContext(t.Context(), "SELECT count(*) FROM seat").Scan(&seats))
	require.Equal(t, 1, seats)
}

// WithTx accepts a transaction from the host's pool, no matter how the pool is configured. The configuration only affects waiting
// for the lock.
func TestTransactionOfAnotherPool(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	store := open(t, path)
	old, err := insertNew(t.Context(), store, reserved("acme", "old@example.com"))
	require.NoError(t, err)
	db, err := sql.Open("sqlite", path) // without foreign keys, immediate transactions and a busy timeout
	require.NoError(t, err)
	defer db.Close()

	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	results, err := store.WithTx(tx).Update(t.Context(), []clerkinvite.Change{{Old: old[0]}})
	require.NoError(t, err)
	require.NoError(t, results[0].Err)
	require.NoError(t, tx.Commit())
	moves, err := store.History(t.Context(), "acme", old[0].ID)
	require.NoError(t, err)
	require.Empty(t, moves, "the history is erased even without foreign keys")

	// It has read before another transaction wrote.
	tx, err = db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM clerkinvite_member").Scan(&n))
	_, err = insertNew(t.Context(), store, reserved("acme", "ada@example.com"))
	require.NoError(t, err)
	_, err = store.WithTx(tx).Insert(t.Context(), []*clerkinvite.Member{reserved("acme", "grace@example.com")})
	require.ErrorContains(t, err, "begin it with BEGIN IMMEDIATE")
}

// Each person gets one row, one invitation, one email, and a history entry for each state change.
func TestInvite(t *testing.T) {
	t.Parallel()
	store, clerk := newStore(t), clerkinvitetest.NewClerk()
	svc := newService(t, store, clerk)
	const people = 25
	var params []clerkinvite.InviteParams
	for i := range people {
		params = append(params, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("%d@example.com", i)})
	}
	for range 2 {
		_, err := svc.InviteMany(t.Context(), params, nil)
		require.NoError(t, err)
	}
	require.Equal(t, people, clerk.Emails())
	for m, err := range svc.All(t.Context(), clerkinvite.ListParams{TenantID: "acme"}) {
		require.NoError(t, err)
		require.Equal(t, clerkinvite.StatusPending, m.Status)
		moves, err := store.History(t.Context(), "acme", m.ID)
		require.NoError(t, err)
		require.Len(t, moves, 2)
	}
}
