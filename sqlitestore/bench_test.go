package sqlitestore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// One member per transaction.
func BenchmarkReserve(b *testing.B) {
	svc := newService(b, newStore(b), clerkinvitetest.NewClerk())
	for i := 0; b.Loop(); i++ {
		_, err := svc.Reserve(b.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("%d@example.com", i)})
		require.NoError(b, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "members/s")
}

// A thousand members in one transaction.
func BenchmarkReserveMany(b *testing.B) {
	svc := newService(b, newStore(b), clerkinvitetest.NewClerk())
	for i := 0; b.Loop(); i++ {
		params := make([]clerkinvite.InviteParams, 1000)
		for j := range params {
			params[j] = clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("%d-%d@example.com", i, j)}
		}
		_, err := svc.ReserveMany(b.Context(), params)
		require.NoError(b, err)
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "members/s")
}

// Concurrent calls of Invite, with a fake Clerk that responds immediately.
func BenchmarkInvite(b *testing.B) {
	svc := newService(b, newStore(b), clerkinvitetest.NewClerk())
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, err := svc.Invite(b.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("%d@example.com", n.Add(1))})
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "members/s")
}
