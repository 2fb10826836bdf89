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

// backlogTimeout ends a reading of the store that a collection waits for: the exporter
// for Prometheus collects without any deadline.
const backlogTimeout = 5 * time.Second

// Watch registers the gauges of what waits in the store, such as a
// [clerkinvite.PgxStore]: how many members are reserved, due and overdue, and how old the
// oldest due one is. Each collection reads the store once, within the collection's
// context and 5 s at most. If that fails, the gauges are left out of this collection, the
// other metrics are not, and otel's error handler gets the reason, without addresses.
//
// It does no I/O itself. stop ends it, and can be called again. Watch one store only:
// the gauges of a second would take the place of the first one's. Processes that share a
// database report the same numbers.
func (o *Observer) Watch(store interface {
	Backlog(ctx context.Context, now time.Time) (clerkinvite.Backlog, error)
},
) (stop func() error, err error) {
	registration, err := o.meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
		defer cancel()
		now := o.now()
		b, err := store.Backlog(ctx, now)
		if err != nil {
			// Not returned: a periodic reader would not export any metric then.
			otel.Handle(errors.New("otelclerkinvite: the backlog cannot be read: " + scrub.Line(err.Error())))
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
