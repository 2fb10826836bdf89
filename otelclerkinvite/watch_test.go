package otelclerkinvite_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/otelclerkinvite"
)

// backlog is a store that has only a backlog.
type backlog func(ctx context.Context, now time.Time) (clerkinvite.Backlog, error)

func (backlog) Clock(context.Context) (time.Time, error) { return time.Time{}, nil }

func (f backlog) Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error) {
	return f(ctx, now)
}

// gauges returns the gauges of a scrape.
func (o *telemetry) gauges(t *testing.T) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for name, family := range o.scrape(t) {
		if rest, ours := strings.CutPrefix(name, "clerkinvite_members_"); ours {
			require.Len(t, family.GetMetric(), 1)
			out[rest] = family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return out
}

func TestGaugesAreReadAtEachCollection(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := newTelemetry(t, func() time.Time { return now })
	b, reads := clerkinvite.Backlog{Reserved: 7, Due: 5, OldestDue: now.Add(-90 * time.Second), Overdue: 3}, 0
	stop, err := o.Watch(backlog(func(_ context.Context, at time.Time) (clerkinvite.Backlog, error) {
		require.Equal(t, now, at)
		reads++
		return b, nil
	}))
	require.NoError(t, err)
	require.Zero(t, reads, "nothing is read before a collection")
	require.Equal(t, map[string]float64{"reserved": 7, "due": 5, "oldest_due_age_seconds": 90, "overdue": 3}, o.gauges(t))
	b = clerkinvite.Backlog{}
	require.Equal(t, map[string]float64{"reserved": 0, "due": 0, "oldest_due_age_seconds": 0, "overdue": 0}, o.gauges(t))
	b = clerkinvite.Backlog{Due: 1, OldestDue: now.Add(time.Second)} // another process's clock
	require.Zero(t, o.gauges(t)["oldest_due_age_seconds"])
	require.Equal(t, 3, reads)
	require.NoError(t, stop())
	require.NoError(t, stop())
	require.Empty(t, o.gauges(t))
	require.Equal(t, 3, reads)
}

func TestFailingStoreRemovesOnlyItsGauges(t *testing.T) {
	t.Parallel()
	o := newTelemetry(t, nil)
	var failure error
	stop, err := o.Watch(backlog(func(context.Context, time.Time) (clerkinvite.Backlog, error) { return clerkinvite.Backlog{}, failure }))
	require.NoError(t, err)
	o.StateChanged(t.Context(), "", clerkinvite.StatusReserved)
	require.Len(t, o.gauges(t), 4)

	failure = errors.New("connect to postgres://app:hunter2@db/app failed for ada@example.com (TestStoreThatFails)")
	// A periodic reader exports nothing if the collection fails.
	var collected metricdata.ResourceMetrics
	require.NoError(t, o.reader.Collect(t.Context(), &collected))
	families := o.scrape(t)
	require.Contains(t, families, "clerkinvite_state_changes_total")
	require.Empty(t, o.gauges(t))

	failure = nil
	require.Len(t, o.gauges(t), 4)
	require.NoError(t, stop())
	handled.Lock()
	defer handled.Unlock()
	at := slices.IndexFunc(handled.errs, func(err error) bool { return strings.Contains(err.Error(), "TestStoreThatFails") })
	require.GreaterOrEqual(t, at, 0, "otel's error handler got it")
	require.NotContains(t, handled.errs[at].Error(), "ada")
	require.NotContains(t, handled.errs[at].Error(), "hunter2")
}

// A collection waits for the store only until its context ends, and never without a deadline.
func TestCollectionDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	o, err := otelclerkinvite.New(&otelclerkinvite.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	require.NoError(t, err)
	asked := make(chan bool, 1)
	_, err = o.Watch(backlog(func(ctx context.Context, _ time.Time) (clerkinvite.Backlog, error) {
		_, bounded := ctx.Deadline()
		asked <- bounded
		<-ctx.Done()
		return clerkinvite.Backlog{}, ctx.Err()
	}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = reader.Collect(ctx, &metricdata.ResourceMetrics{})
	}()
	require.True(t, <-asked, "the Prometheus exporter sets no deadline")
	cancel()
	<-done
}

func TestPostgreSQLGauges(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	now := clerkinvitetest.NewClock(time.Now().UTC().Truncate(time.Microsecond))
	store := clerkinvite.NewPgxStore(db.Pool(t), &clerkinvite.PgxOptions{Now: now.Now})
	require.NoError(t, store.Migrate(t.Context()))
	o := newTelemetry(t, now.Now)
	stop, err := o.Watch(store)
	require.NoError(t, err)
	clerk := clerkinvitetest.NewClerk()
	clerk.SetNow(now.Now)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerk, Store: store, Now: now.Now, Observer: o, ExpiresInDays: 1})
	require.NoError(t, err)
	_, err = svc.Invite(t.Context(), person("ada@example.com"))
	require.NoError(t, err)
	_, err = svc.ReserveMany(t.Context(), []clerkinvite.InviteParams{person("bob@example.com"), person("carol@example.com")})
	require.NoError(t, err)
	now.Advance(48 * time.Hour)
	require.Equal(t, map[string]float64{"reserved": 2, "due": 2, "oldest_due_age_seconds": 48 * 3600, "overdue": 1}, o.gauges(t))
	_, err = svc.Deliver(t.Context(), nil)
	require.NoError(t, err)
	_, err = svc.Reconcile(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, map[string]float64{"reserved": 0, "due": 0, "oldest_due_age_seconds": 0, "overdue": 0}, o.gauges(t))
	require.NoError(t, stop())
}
