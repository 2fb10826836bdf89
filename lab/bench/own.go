package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// stubStore takes everything at once and keeps nothing, so that what remains to be measured is the library itself.
type stubStore struct{}

var _ clerkinvite.Store = stubStore{}

// Insert implements clerkinvite.TxStore.
func (stubStore) Insert(_ context.Context, rows []*clerkinvite.Member) ([]clerkinvite.Result, error) {
	results := make([]clerkinvite.Result, len(rows))
	for i, row := range rows {
		m := *row
		results[i].Member = &m
	}
	return results, nil
}

// Update implements clerkinvite.TxStore.
func (stubStore) Update(_ context.Context, changes []clerkinvite.Change) ([]clerkinvite.Result, error) {
	results := make([]clerkinvite.Result, len(changes))
	for i, c := range changes {
		m := *c.New
		m.Version = c.Old.Version + 1
		results[i].Member = &m
	}
	return results, nil
}

// Find implements clerkinvite.Store.
func (stubStore) Find(context.Context, clerkinvite.Query) ([]*clerkinvite.Member, error) {
	return nil, nil
}

// Due implements clerkinvite.Store.
func (stubStore) Due(context.Context, time.Time, int) ([]*clerkinvite.Member, error) {
	return nil, nil
}

// Page implements clerkinvite.Store.
func (stubStore) Page(context.Context, clerkinvite.PageQuery) ([]*clerkinvite.Member, error) {
	return nil, nil
}

// History implements clerkinvite.Store.
func (stubStore) History(context.Context, string, string) ([]clerkinvite.HistoryEntry, error) {
	return nil, nil
}

// SwapTime implements clerkinvite.Store.
func (stubStore) SwapTime(_ context.Context, _ string, _, next time.Time) (time.Time, error) {
	return next, nil
}

// stubAPI is a Clerk that answers at once: it knows nobody and invites everybody.
func stubAPI() clerkinvite.ClerkAPI {
	expires := time.Now().Add(30 * 24 * time.Hour)
	return clerkinvitetest.ClerkFuncs{
		FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, nil },
		CreateInvitationFunc: func(_ context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
			return &clerkinvite.Invitation{
				ID: "inv_000001", Email: r.Email, Status: clerkinvite.InvitationPending, URL: clerkinvite.NewSecret("https://example.com/accept"),
				PublicMetadata: r.PublicMetadata, CreatedAt: expires, ExpiresAt: &expires,
			}, nil
		},
	}
}

// benchmarkInvite measures Invite on a store and an API that cost next to nothing.
func benchmarkInvite(b *testing.B) {
	svc, err := clerkinvite.New(clerkinvite.Config{Store: stubStore{}, API: stubAPI()})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := svc.Invite(b.Context(), clerkinvite.InviteParams{TenantID: tenant, Email: "person@example.com", Role: role})
		if err != nil {
			b.Fatal(err)
		}
		if m.Status != clerkinvite.StatusPending || m.ClerkUserID != "pending_inv_000001" {
			b.Fatalf("the member is %s", m.Status)
		}
	}
}

// benchmarkStubs measures what that store and that API cost in an Invite.
func benchmarkStubs(b *testing.B) {
	api, rows := stubAPI(), []*clerkinvite.Member{{}}
	changes := []clerkinvite.Change{{Old: rows[0], New: rows[0]}}
	b.ReportAllocs()
	for b.Loop() {
		_, err1 := stubStore{}.Insert(b.Context(), rows)
		_, err2 := api.FindUsers(b.Context(), clerkinvite.UserQuery{})
		_, err3 := api.CreateInvitation(b.Context(), clerkinvite.InvitationRequest{})
		_, err4 := stubStore{}.Update(b.Context(), changes)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			b.Fatal(err)
		}
	}
}

// partOwn measures what the library itself does in an Invite.
func partOwn(ctx context.Context, b *bench, r *report) error {
	testing.Init()
	if err := flag.Set("test.benchtime", b.benchtime); err != nil {
		return err
	}
	r.part("5. The library itself",
		"Invite over an API and a store that answer at once and keep nothing, by testing.Benchmark, less what those two take when they are called alone.")
	var times, allocs []float64
	for range b.rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		all, stubs := testing.Benchmark(benchmarkInvite), testing.Benchmark(benchmarkStubs)
		if all.N == 0 || stubs.N == 0 {
			return r.failed("Invite, own part", incomparable("it did not end in a pending member"))
		}
		times = append(times, perOp(all)-perOp(stubs))
		allocs = append(allocs, float64(all.AllocsPerOp()-stubs.AllocsPerOp()))
	}
	r.value(fmt.Sprintf("Invite, own time, median of %d", b.rounds), spreadOf(times).median, "µs", goal{bound: 15, unit: "µs"})
	r.value("Invite, own allocations", spreadOf(allocs).median, "allocations", goal{bound: 60, unit: "allocations"})
	return nil
}

// perOp is the time of one operation in microseconds.
func perOp(r testing.BenchmarkResult) float64 { return r.T.Seconds() * 1e6 / float64(r.N) }
