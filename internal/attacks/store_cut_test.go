package attacks_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

// cutter is a proxy in front of PostgreSQL that knows enough of its protocol to cut a
// connection at an exact moment of the next statement about the tables.
type cutter struct {
	addr string

	mu    sync.Mutex
	next  *cut
	fired int
}

// cut decides when to cut.
type cut struct {
	// commit: cut the next COMMIT, not the next statement about the tables.
	commit bool
	// before: the server never gets the statement. Otherwise it executes it and
	// commits, and only the first messages of its response get through.
	before   bool
	messages int
	// inFlight: cut as soon as the server has the statement, which it then executes.
	inFlight bool
	// then runs at the moment of the cut, before the client can notice it.
	then func()
}

func (c *cut) doThen() {
	if c.then != nil {
		c.then()
	}
}

func newCutter(t *testing.T, upstream string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &cutter{addr: l.Addr().String()}
	var conns sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				_ = client.Close()
				continue
			}
			conns.Go(func() { p.serve(client, server) })
		}
	}()
	return p
}

// arm cuts the next statement about the tables.
func (p *cutter) arm(c cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.fired = &c, 0
}

// cuts returns how many connections were cut since arm.
func (p *cutter) cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fired
}

// take returns the cut for a statement that is about to run, if it must be cut.
func (p *cutter) take(commit bool) *cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.next
	if c != nil && c.commit != commit {
		c = nil
	}
	if c != nil {
		p.next = nil
		p.fired++
	}
	return c
}

func (p *cutter) serve(client, server net.Conn) {
	defer func() { _ = client.Close() }()
	defer func() { _ = server.Close() }()
	if startup(client, server) != nil {
		return
	}
	var current atomic.Pointer[cut] // for the statement that runs now
	var done sync.WaitGroup
	done.Go(func() { // from the server to the client
		defer func() { _ = client.Close() }()
		passed := 0
		for {
			kind, message, err := readMessage(server)
			if err != nil {
				return
			}
			c := current.Load()
			if c == nil {
				if _, err := client.Write(message); err != nil {
					return
				}
				continue
			}
			if kind == 'Z' { // ReadyForQuery: committed
				if !c.inFlight {
					c.doThen()
				}
				return
			}
			if passed < c.messages {
				passed++
				if _, err := client.Write(message); err != nil {
					return
				}
			}
		}
	})
	ours := false // the last parsed statement is about the tables
	for {
		kind, message, err := readMessage(client)
		if err != nil {
			break
		}
		if kind == 'P' || kind == 'Q' { // Parse, Query
			ours = bytes.Contains(message, []byte("clerkinvite_"))
		}
		if kind == 'B' && message[5+bytes.IndexByte(message[5:], 0)+1] != 0 { // Bind of a statement prepared earlier
			ours = true
		}
		commit := kind == 'Q' && string(message[5:]) == "commit\x00" // not "begin isolation level read committed"
		if (kind == 'E' || kind == 'Q') && (ours || commit) {        // Execute, Query
			if c := p.take(commit); c != nil {
				if c.before {
					c.doThen()
					break
				}
				current.Store(c)
				if c.inFlight {
					if kind == 'E' {
						message = append(message, 'S', 0, 0, 0, 4) // the client's Sync
					}
					_, _ = server.Write(message)
					c.doThen()
					_ = client.Close()
					done.Wait()
					return
				}
			}
		}
		if _, err := server.Write(message); err != nil {
			break
		}
	}
	_ = server.Close()
	_ = client.Close()
	done.Wait()
}

// startup passes on the client's first message, which has no type byte. There is no TLS.
// A cancel request, which pgx sends after a statement whose connection broke, is lost, too.
func startup(client, server net.Conn) error {
	var length [4]byte
	if _, err := io.ReadFull(client, length[:]); err != nil {
		return err
	}
	rest := make([]byte, binary.BigEndian.Uint32(length[:])-4)
	if _, err := io.ReadFull(client, rest); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(rest) == 80877102 {
		return errors.New("cancel request")
	}
	_, err := server.Write(append(length[:], rest...))
	return err
}

func readMessage(conn net.Conn) (kind byte, message []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, nil, err
	}
	message = make([]byte, 1+binary.BigEndian.Uint32(head[1:]))
	copy(message, head[:])
	_, err = io.ReadFull(conn, message[5:])
	return head[0], message, err
}

// cutStore returns two pools for a database with the tables: one through a cutter, and one directly.
func cutStore(t *testing.T, opts ...func(*pgxpool.Config)) (through *pgxpool.Pool, proxy *cutter, direct *pgxpool.Pool) {
	t.Helper()
	db := pgtest.New(t)
	if db.Addr == "" {
		pgtest.Missing(t, "postgres", "the server of CLERKINVITE_TEST_DATABASE is reached by a unix socket, which cannot be cut; name its TCP address")
	}
	p := newCutter(t, db.Addr)
	through = db.Pool(t, append(opts, func(c *pgxpool.Config) {
		c.ConnConfig.TLSConfig, c.ConnConfig.Fallbacks = nil, nil
		c.ConnConfig.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", p.addr)
		}
	})...)
	direct = db.Pool(t)
	require.NoError(t, clerkinvite.NewPgxStore(direct, nil).Migrate(t.Context()))
	return through, p, direct
}

// everyCut calls f for a cut before the server has the statement, and for a cut after each message of its response, except
// the last.
func everyCut(t *testing.T, f func(t *testing.T, name string, c cut)) {
	f(t, "before", cut{before: true})
	for n := range 7 { // ParseComplete, BindComplete, RowDescription, two DataRows, CommandComplete, and one more
		f(t, fmt.Sprintf("after%d", n), cut{messages: n})
	}
}

// The connection is cut before and after the commit of each kind of statement, in every mode. Each call must
// return the right result, and take effect once.
func TestPgxStoreLostResponses(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		store, fresh := clerkinvite.NewPgxStore(through, nil), clerkinvite.NewPgxStore(direct, nil)
		history := func(m *clerkinvite.Member) int {
			return testkit.QueryOne[int](t, direct, `SELECT count(*) FROM clerkinvite_history WHERE member_id = $1`, m.ID)
		}
		stored := func(m *clerkinvite.Member) *clerkinvite.Member {
			found, err := fresh.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
			require.NoError(t, err)
			require.Len(t, found, 1)
			return found[0]
		}
		everyCut(t, func(t *testing.T, name string, c cut) {
			other := testkit.InsertRows(t, fresh, testkit.ReservedRow(name, "other@example.com"))[0]

			proxy.arm(c)
			row := testkit.ReservedRow(name, "x@example.com")
			dup := testkit.ReservedRow(name, "other@example.com")
			results, err := store.Insert(t.Context(), []*clerkinvite.Member{row, dup})
			require.NoError(t, err, name)
			require.Equal(t, 1, proxy.cuts(), name)
			require.NoError(t, results[0].Err, name)
			require.Equal(t, row, normalised(results[0].Member), name)
			var duplicate *clerkinvite.DuplicateEmailError
			require.ErrorAs(t, results[1].Err, &duplicate, name)
			require.Equal(t, other, duplicate.Member, name)
			require.Equal(t, 1, history(row), name)

			for _, next := range []func(m *clerkinvite.Member) *clerkinvite.Member{
				func(m *clerkinvite.Member) *clerkinvite.Member { // a claim
					n, until := *m, testkit.RowTime.Add(time.Minute)
					n.Attempts, n.ClaimedUntil, n.NextAttemptAt = 1, &until, &until
					return &n
				},
				func(m *clerkinvite.Member) *clerkinvite.Member {
					n := testkit.PendingRow(m)
					n.ClaimedUntil = nil
					return n
				},
				func(m *clerkinvite.Member) *clerkinvite.Member { return testkit.ActiveRow(m, "user_1") },
				func(m *clerkinvite.Member) *clerkinvite.Member {
					n := *m
					n.Email, n.Role, n.ChangedBy = "xmoved@example.com", "owner", "admin"
					return &n
				},
			} {
				old := stored(row)
				moves := history(row)
				change := clerkinvite.Change{Old: old, New: next(old)}
				stale := *other
				stale.Version = 9
				proxy.arm(c)
				results, err := store.Update(t.Context(), []clerkinvite.Change{change, {Old: &stale, New: testkit.PendingRow(&stale)}})
				require.NoError(t, err, name)
				require.Equal(t, 1, proxy.cuts(), name)
				require.NoError(t, results[0].Err, name)
				require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict, name)
				now := stored(row)
				require.Equal(t, now, results[0].Member, name)
				require.Equal(t, old.Version+1, now.Version, name)
				if change.Recorded() {
					moves++
				}
				require.Equal(t, moves, history(row), name)
			}

			proxy.arm(c)
			results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: other, New: testkit.ActiveRow(other, "user_1")}})
			require.NoError(t, err, name)
			require.ErrorIs(t, results[0].Err, clerkinvite.ErrUserTaken, name)
			require.Equal(t, 1, proxy.cuts(), name)

			proxy.arm(c)
			found, err := store.Find(t.Context(), clerkinvite.Query{IDs: []string{row.ID}})
			require.NoError(t, err, name)
			require.Equal(t, []*clerkinvite.Member{stored(row)}, found, name)
			require.Equal(t, 1, proxy.cuts(), name)

			proxy.arm(c)
			found, err = store.Page(t.Context(), clerkinvite.PageQuery{TenantID: name, EmailPrefix: "x"})
			require.NoError(t, err, name)
			require.Equal(t, []*clerkinvite.Member{stored(row)}, found, name)
			require.Equal(t, 1, proxy.cuts(), name)

			proxy.arm(c)
			moved, err := store.History(t.Context(), name, row.ID)
			require.NoError(t, err, name)
			require.Len(t, moved, history(row), name)
			require.Equal(t, 1, proxy.cuts(), name)

			var known time.Time
			for _, next := range []time.Time{testkit.RowTime, testkit.RowTime.Add(time.Hour), testkit.RowTime.Add(-time.Hour)} {
				proxy.arm(c)
				got, err := store.SwapTime(t.Context(), name, known, next)
				require.NoError(t, err, name)
				require.Equal(t, next, got, name)
				require.Equal(t, 1, proxy.cuts(), name)
				known = next
			}

			old := stored(row)
			stale := *other
			stale.Version = 9
			proxy.arm(c)
			results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: old}, {Old: &stale}})
			require.NoError(t, err, name)
			require.Equal(t, 1, proxy.cuts(), name)
			require.Equal(t, clerkinvite.Result{Member: old}, results[0], name)
			require.ErrorIs(t, results[1].Err, clerkinvite.ErrConflict, name)
			require.Zero(t, history(row), name)
		})
	})
}

// normalised gives Data the form in which the row was written, because jsonb has another.
func normalised(m *clerkinvite.Member) *clerkinvite.Member {
	n := *m
	n.Data = bytes.ReplaceAll(n.Data, []byte(`":7`), []byte(`": 7`))
	return &n
}

// After a lost response, Migrate succeeds whether or not the migration was committed.
func TestMigrateLostResponse(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, _ := cutStore(t, mode)
		for i, c := range []cut{{commit: true, before: true}, {commit: true}, {commit: true, messages: 1}, {before: true}, {}} {
			store := clerkinvite.NewPgxStore(through, &clerkinvite.PgxOptions{Schema: fmt.Sprintf("s%d", i)})
			proxy.arm(c)
			require.NoError(t, store.Migrate(t.Context()))
			require.Equal(t, 1, proxy.cuts())
			require.NoError(t, store.Validate(t.Context()))
		}
	})
}

// If others have changed the row before the repetition, the change is a conflict,
// even if it had been made.
func TestPgxStoreLostResponseAndLaterChange(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		store, fresh := clerkinvite.NewPgxStore(through, nil), clerkinvite.NewPgxStore(direct, nil)
		for name, later := range map[string]struct {
			before  bool
			version int64
		}{"after ours": {false, 2}, "instead of ours": {true, 1}} {
			m := testkit.InsertRows(t, fresh, testkit.ReservedRow(name, "x@example.com"))[0]
			until := testkit.RowTime.Add(time.Minute)
			claim := func(holder int) *clerkinvite.Member {
				n := *m
				n.Attempts, n.ClaimedUntil = holder, &until
				return &n
			}
			others := make(chan *clerkinvite.Member, 1)
			proxy.arm(cut{before: later.before, then: func() {
				old := *m
				old.Version = later.version
				results, err := fresh.Update(context.Background(), []clerkinvite.Change{{Old: &old, New: claim(7)}})
				assert.NoError(t, err)
				assert.NoError(t, results[0].Err)
				others <- results[0].Member
			}})
			results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: claim(1)}})
			require.NoError(t, err, name)
			require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict, name)
			found, err := fresh.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
			require.NoError(t, err)
			require.Equal(t, []*clerkinvite.Member{<-others}, found, name)
		}
	})
}

// A row that others have changed before the repetition is not taken for an erased
// one, even if it looks the same.
func TestPgxStoreLostErasureAndLaterChange(t *testing.T) {
	t.Parallel()
	through, proxy, direct := cutStore(t)
	store, fresh := clerkinvite.NewPgxStore(through, nil), clerkinvite.NewPgxStore(direct, nil)
	m := testkit.InsertRows(t, fresh, testkit.ReservedRow("tenant", "x@example.com"))[0]
	proxy.arm(cut{before: true, then: func() {
		results, err := fresh.Update(context.Background(), []clerkinvite.Change{{Old: m, New: m}})
		assert.NoError(t, err)
		assert.NoError(t, results[0].Err)
	}})
	results, err := store.Update(t.Context(), []clerkinvite.Change{{Old: m}})
	require.NoError(t, err)
	require.ErrorIs(t, results[0].Err, clerkinvite.ErrConflict)

	// A row that was erased and written again is another row.
	again := testkit.ReservedRow("tenant", "x@example.com")
	m.Version = 2
	proxy.arm(cut{then: func() {
		results, err := fresh.Insert(context.Background(), []*clerkinvite.Member{again})
		assert.NoError(t, err)
		assert.NoError(t, results[0].Err)
	}})
	require.Equal(t, m, testkit.UpdateRows(t, store, clerkinvite.Change{Old: m})[0])
	found, err := fresh.Find(t.Context(), clerkinvite.Query{Refs: []clerkinvite.Ref{m.Ref()}})
	require.NoError(t, err)
	require.Equal(t, []*clerkinvite.Member{again}, []*clerkinvite.Member{normalised(found[0])})
}

// In a host's transaction nothing is repeated, and the host gets the error.
func TestPgxStoreWithTxLostResponse(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		fresh := clerkinvite.NewPgxStore(direct, nil)
		m := testkit.InsertRows(t, fresh, testkit.ReservedRow("tenant", "there@example.com"))[0]
		tx, err := through.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		inTx := fresh.WithTx(tx)
		proxy.arm(cut{messages: 1})
		_, err = inTx.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "x@example.com")})
		require.Error(t, err)
		_, err = inTx.Update(t.Context(), []clerkinvite.Change{{Old: m, New: testkit.ActiveRow(m, "user_1")}})
		require.Error(t, err)
		require.Equal(t, 1, testkit.QueryOne[int](t, direct, `SELECT count(*) FROM clerkinvite_history`))
	})
}

// The connection breaks while the server still executes the statement, so the
// repetition runs at the same time.
func TestPgxStoreStatementInFlight(t *testing.T) {
	t.Parallel()
	testkit.InEveryMode(t, func(t *testing.T, mode func(*pgxpool.Config)) {
		through, proxy, direct := cutStore(t, mode)
		store, fresh := clerkinvite.NewPgxStore(through, nil), clerkinvite.NewPgxStore(direct, nil)
		waiting := func(n int) { testkit.AwaitLocks(t, direct, n) }

		// Another transaction locks the row while both the lost Update and its repetition wait for it.
		m := testkit.InsertRows(t, fresh, testkit.ReservedRow("tenant", "x@example.com"))[0]
		holder, err := direct.Begin(t.Context())
		require.NoError(t, err)
		_, err = holder.Exec(t.Context(), `SELECT FROM clerkinvite_member FOR UPDATE`)
		require.NoError(t, err)
		proxy.arm(cut{inFlight: true, then: func() { waiting(1) }})
		var results []clerkinvite.Result
		var done sync.WaitGroup
		done.Go(func() {
			results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: testkit.PendingRow(m)}})
		})
		waiting(2)
		require.NoError(t, holder.Commit(t.Context()))
		done.Wait()
		updated := testkit.Members(t, results, err)[0]
		require.EqualValues(t, 2, updated.Version)
		require.Equal(t, 2, testkit.QueryOne[int](t, direct, `SELECT count(*) FROM clerkinvite_history`))

		// Another transaction inserts the address, and rolls back.
		holder, err = direct.Begin(t.Context())
		require.NoError(t, err)
		testkit.InsertRows(t, fresh.WithTx(holder), testkit.ReservedRow("tenant", "y@example.com"))
		proxy.arm(cut{inFlight: true, then: func() { waiting(1) }})
		row := testkit.ReservedRow("tenant", "y@example.com")
		done.Go(func() { results, err = store.Insert(t.Context(), []*clerkinvite.Member{row}) })
		waiting(2)
		require.NoError(t, holder.Rollback(t.Context()))
		done.Wait()
		require.Equal(t, row.ID, testkit.Members(t, results, err)[0].ID)
		require.Equal(t, 3, testkit.QueryOne[int](t, direct, `SELECT count(*) FROM clerkinvite_history`))
	})
}

// Server errors that are not about the statement are not errors of the call.
func TestPgxStoreServerTrouble(t *testing.T) {
	t.Parallel()
	store, pool := testkit.NewPgxStore(t)
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]

	t.Run("terminated", func(t *testing.T) {
		holder, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = holder.Exec(t.Context(), `SELECT FROM clerkinvite_member FOR UPDATE`)
		require.NoError(t, err)
		var results []clerkinvite.Result
		var done sync.WaitGroup
		done.Go(func() {
			results, err = store.Update(t.Context(), []clerkinvite.Change{{Old: m, New: testkit.PendingRow(m)}})
		})
		testkit.Await(t, "the blocked Update", func() bool {
			return testkit.QueryOne[int](t, pool, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
		})
		require.NoError(t, holder.Commit(t.Context()))
		done.Wait()
		m = testkit.Members(t, results, err)[0]
		require.EqualValues(t, 2, m.Version)
		require.Equal(t, 2, testkit.QueryOne[int](t, pool, `SELECT count(*) FROM clerkinvite_history`))
	})

	t.Run("serializable", func(t *testing.T) {
		strict, _ := testkit.NewPgxStore(t, func(c *pgxpool.Config) {
			c.MaxConns = 8
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
		})
		var written atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				results, err := strict.Insert(t.Context(), []*clerkinvite.Member{testkit.ReservedRow("tenant", "a@example.com"), testkit.ReservedRow("tenant", "b@example.com")})
				if err != nil {
					t.Errorf("Insert: %v", err)
				}
				for _, r := range results {
					if r.Err == nil {
						written.Add(1)
					}
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 2, written.Load())
	})

	t.Run("unreachable", func(t *testing.T) {
		// The system never gives port 1 to a server that asks for a free port.
		closed, err := pgxpool.New(t.Context(), "postgres://unknown@127.0.0.1:1/none?sslmode=disable")
		require.NoError(t, err)
		defer closed.Close()
		_, err = clerkinvite.NewPgxStore(closed, nil).Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
		var connect *pgconn.ConnectError
		require.ErrorAs(t, err, &connect, "the error is passed through")

		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = clerkinvite.NewPgxStore(closed, nil).Find(ctx, clerkinvite.Query{IDs: []string{m.ID}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})

	t.Run("blocked", func(t *testing.T) {
		holder, err := pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = holder.Rollback(t.Context()) }()
		_, err = holder.Exec(t.Context(), `SELECT FROM clerkinvite_member FOR UPDATE`)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = store.Update(ctx, []clerkinvite.Change{{Old: m, New: testkit.PendingRow(m)}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})

	t.Run("refused", func(t *testing.T) {
		illegal := testkit.ReservedRow("tenant", "z@example.com")
		illegal.Attempts = -1
		results, err := store.Insert(t.Context(), []*clerkinvite.Member{illegal})
		require.NoError(t, err)
		var pg *pgconn.PgError
		require.ErrorAs(t, results[0].Err, &pg, "the error is passed through")
		require.Equal(t, "clerkinvite_member_send_check", pg.ConstraintName)
	})
}

// A single connection works as a store, for one goroutine. If it breaks, the call returns the error.
func TestPgxStoreOnConn(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.New(t).DSN)
	require.NoError(t, err)
	count := &testkit.StatementCounter{}
	config.Tracer = count
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	store := clerkinvite.NewPgxStore(conn, nil)
	require.NoError(t, store.Migrate(t.Context()))
	require.NoError(t, store.Validate(t.Context()))
	m := testkit.InsertRows(t, store, testkit.ReservedRow("tenant", "x@example.com"))[0]
	testkit.UpdateRows(t, store, clerkinvite.Change{Old: m, New: testkit.PendingRow(m)})

	require.NoError(t, conn.Close(t.Context()))
	count.N.Store(0)
	_, err = store.Find(t.Context(), clerkinvite.Query{IDs: []string{m.ID}})
	require.Error(t, err)
	require.NotErrorIs(t, err, context.Canceled)
	require.LessOrEqual(t, count.N.Load(), int64(1), "a connection that cannot come back is not tried again")
}
