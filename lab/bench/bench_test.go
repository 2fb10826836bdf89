package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) != "" {
		if err := serveFake(context.Background(), os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(pgtest.Main(m))
}

// Every part yields figures, and all that it compares has done the same work. What the figures are is not tested.
func TestEachPartComparesEqualWork(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t).DSN
	for name, figures := range map[string]int{"invite": 4, "reserve": 2, "webhook": 5, "scale": 4 * len(questions), "own": 2, "disk": 24} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bench{
				server: &postgres{dsn: dsn}, rounds: 1, loads: []load{{1, 3, 0}, {4, 12, time.Millisecond}}, reserve: 1100, verify: 5, events: 3,
				members: []int{1000, 2000}, tenants: 50, queries: 3, benchtime: "20x", disk: 1000,
			}
			out := &bytes.Buffer{}
			require.NoError(t, b.measure(t.Context(), "go test", regexp.MustCompile("^"+name+"$"), out))
			require.Contains(t, out.String(), fmt.Sprintf("\n%d figures, 0 not comparable.", figures), "%s", out)
			require.NotContains(t, out.String(), "NaN", "%s", out)
		})
	}
}

// A variant that leaves something else gets no figure.
func TestOtherWorkGetsNoFigure(t *testing.T) {
	t.Parallel()
	_, err := interleave(t.Context(), 1, variant{"half", func(context.Context) (sample, error) { return sample{}, incomparable("1 row instead of 2") }})
	out := &bytes.Buffer{}
	r := &report{out: out}
	require.NoError(t, r.failed("Invite", err))
	require.Equal(t, "| Invite | not comparable: half: 1 row instead of 2 |  |  |  |  |  |\n", out.String())
	require.Zero(t, r.figures)
}

// The command line as a user types it.
func TestRun(t *testing.T) {
	t.Parallel()
	dsn := pgtest.New(t).DSN
	out := &bytes.Buffer{}
	require.ErrorContains(t, run(t.Context(), []string{"-database", dsn, "-run", "nothing"}, out), `no part matches "nothing"`)
	require.Contains(t, out.String(), "-database … -run nothing")
	require.NotContains(t, out.String(), dsn, "it may hold a password")
	require.Error(t, run(t.Context(), []string{"-run", "("}, out))
}

// The server that is started syncs to the disk, and nothing is left of it.
func TestOwnServer(t *testing.T) {
	t.Parallel()
	pgtest.Bin(t)
	p, err := startServer(t.Context())
	require.NoError(t, err)
	about, err := p.about(t.Context())
	config, _ := pgx.ParseConfig(p.dsn)
	p.stop()
	require.NoError(t, err)
	require.Contains(t, about, "fsync on, synchronous_commit on")
	require.NoDirExists(t, config.Host)
}

// The flow by hand is one that works: it links who has the address verified, and knows a duplicate.
func TestBaseline(t *testing.T) {
	t.Parallel()
	f, err := startFake(t.Context())
	require.NoError(t, err)
	t.Cleanup(f.stop)
	pool := pgtest.New(t).Pool(t)
	_, err = pool.Exec(t.Context(), baselineTable)
	require.NoError(t, err)
	byHand := newBaseline(pool, f)
	events, err := f.signUp(t.Context(), []string{"ada@example.com"})
	require.NoError(t, err)
	require.Contains(t, string(events[0].Payload), "user_000001")
	require.NoError(t, byHand.invite(t.Context(), tenant, " Ada@Example.com", role))
	require.ErrorIs(t, byHand.invite(t.Context(), tenant, "ada@example.com", role), errBaselineDuplicate)
	require.NoError(t, byHand.invite(t.Context(), tenant, "grace@example.com", role))
	mail, err := f.mail(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"grace@example.com": {"inv_000001"}}, mail)
	var members string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT string_agg(email || ' ' || status || ' ' || clerk_user_id, ', ' ORDER BY email) FROM team_member").Scan(&members))
	require.Equal(t, "ada@example.com active user_000001, grace@example.com pending pending_inv_000001", members)
}

func BenchmarkInvite(b *testing.B) { benchmarkInvite(b) }

func BenchmarkStubs(b *testing.B) { benchmarkStubs(b) }

func BenchmarkVerify(b *testing.B) {
	v, err := newVerifiers()
	require.NoError(b, err)
	hook := clerkinvitetest.NewClerk().SignUp("ada@example.com", true)
	header := hook.Sign(clerkinvitetest.WebhookSecret)
	b.ReportAllocs()
	b.SetBytes(int64(len(hook.Payload)))
	for b.Loop() {
		if _, err := v.ours.Verify(hook.Payload, header); err != nil {
			b.Fatal(err)
		}
	}
}
