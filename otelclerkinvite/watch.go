package otelclerkinvite

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/scrub"
)

// backlogTimeout limits how long a collection waits for the store. The Prometheus exporter
// sets no deadline.
const backlogTimeout = 5 * time.Second

// Watch registers gauges for a store such as a [clerkinvite.PgxStore]: the numbers of
// reserved, due and overdue members, and how long the longest due member has been due.
// Each collection reads the store's clock and its backlog, within its context and 5 s. If that fails, the
// collection has no gauges, and otel's error handler gets the error without addresses.
//
// Watch does no I/O. stop unregisters the gauges and may be called more than once. Watch
// only one store: a second one would replace the first one's numbers. All processes on one
// database report the same numbers.
//
// Errors: those of the meter provider. Watch is safe for concurrent use.
func (o *Observer) Watch(store interface {
	Clock(ctx context.Context) (time.Time, error)
	Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error)
},
) (stop func() error, err error) {
	registration, err := o.meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
		defer cancel()
		now, err := store.Clock(ctx)
		if now.IsZero() {
			now = o.now()
		}
		var b clerkinvite.Backlog
		if err == nil {
			b, err = store.Backlog(ctx, now)
		}
		if err != nil {
			// If it were returned, a periodic reader would export no metrics at all.
			otel.Handle(errors.New("otelclerkinvite: read the backlog: " + scrub.Line(err.Error())))
			return nil
		}
		age := 0.0
		if !b.OldestDue.IsZero() {
			age = max(0, now.Sub(b.OldestDue).Seconds())
		}
		to.ObserveInt64(o.reserved, int64(b.Reserved))
		to.ObserveInt64(o.due, int64(b.Due))
		to.ObserveFloat64(o.oldestDue, age)
		to.ObserveInt64(o.overdue, int64(b.Overdue))
		return nil
	}, o.reserved, o.due, o.oldestDue, o.overdue)
	if err != nil {
		return nil, err
	}
	return registration.Unregister, nil
}
