package otelclerkinvite

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/clerkinvite/clerkinvite"
)

// scope is the name of the instrumentation scope.
const scope = "github.com/clerkinvite/clerkinvite/otelclerkinvite"

// Attributes of spans and metrics.
const (
	keyVerb      = attribute.Key("clerkinvite.verb")
	keyOperation = attribute.Key("clerkinvite.operation")
	keyOutcome   = attribute.Key("clerkinvite.outcome")
	keyFrom      = attribute.Key("clerkinvite.from")
	keyTo        = attribute.Key("clerkinvite.to")
	keyStatus    = attribute.Key("http.response.status_code")
	keyCode      = attribute.Key("clerkinvite.clerk.code")
	keyTraceID   = attribute.Key("clerkinvite.clerk.trace_id")
	keyErrorType = attribute.Key("error.type")
	keyPeer      = attribute.Key("peer.service")
)

// Options are the options of New; nil means all defaults.
type Options struct {
	TracerProvider trace.TracerProvider // defaults to otel's global one, even if that is set later
	MeterProvider  metric.MeterProvider // defaults to otel's global one, even if that is set later

	// Now is the clock of Watch if the store has none. Set it to the Now of clerkinvite.Config.
	// Defaults to time.Now.
	Now func() time.Time
}

// Observer implements [clerkinvite.Observer] with spans and metrics. Create it with [New].
// Several services may share one. It starts no goroutine and need not be closed. Observer
// is safe for concurrent use.
type Observer struct {
	now    func() time.Time
	tracer trace.Tracer
	meter  metric.Meter

	verbs    metric.Float64Histogram
	requests metric.Float64Histogram
	waits    metric.Float64Histogram
	limited  metric.Int64Counter
	changes  metric.Int64Counter

	reserved  metric.Int64ObservableGauge
	due       metric.Int64ObservableGauge
	oldestDue metric.Float64ObservableGauge
	overdue   metric.Int64ObservableGauge
}

var _ clerkinvite.Observer = (*Observer)(nil)

// Bounds of the histograms, in seconds. Requests end after a few timeouts of 20 s, verbs
// for many people take minutes, and a wait for a rate limit lasts up to an hour.
var (
	requestBounds = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	verbBounds    = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600}
	waitBounds    = []float64{1, 5, 10, 30, 60, 300, 600, 1200, 1800, 2700, 3600, 4500}
)

// New returns an Observer for Config.Observer. It does no I/O. opts may be nil.
//
// Errors: those of the meter provider.
func New(opts *Options) (*Observer, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the default
	}
	meter := o.MeterProvider.Meter(scope)
	ob := &Observer{now: o.Now, tracer: o.TracerProvider.Tracer(scope), meter: meter}
	var faults [9]error
	ob.verbs, faults[0] = meter.Float64Histogram("clerkinvite.verb.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(verbBounds...), metric.WithDescription("Duration of calls of the service."))
	ob.requests, faults[1] = meter.Float64Histogram("clerkinvite.clerk.request.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(requestBounds...), metric.WithDescription("Duration of requests to Clerk."))
	ob.waits, faults[2] = meter.Float64Histogram("clerkinvite.rate_limit.wait.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(waitBounds...), metric.WithDescription("Time spent waiting for Clerk's rate limits."))
	ob.limited, faults[3] = meter.Int64Counter("clerkinvite.clerk.rate_limited", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that were rejected with 429."))
	ob.changes, faults[4] = meter.Int64Counter("clerkinvite.state_changes", metric.WithUnit("{change}"),
		metric.WithDescription("State changes of members."))
	ob.reserved, faults[5] = meter.Int64ObservableGauge("clerkinvite.members.reserved", metric.WithUnit("{member}"),
		metric.WithDescription("Reserved members."))
	ob.due, faults[6] = meter.Int64ObservableGauge("clerkinvite.members.due", metric.WithUnit("{member}"),
		metric.WithDescription("Members that are due now."))
	ob.oldestDue, faults[7] = meter.Float64ObservableGauge("clerkinvite.members.oldest_due.age", metric.WithUnit("s"),
		metric.WithDescription("How long the longest due member has been due; 0 if none is due."))
	ob.overdue, faults[8] = meter.Int64ObservableGauge("clerkinvite.members.overdue", metric.WithUnit("{member}"),
		metric.WithDescription("Pending members whose invitation has expired."))
	if err := errors.Join(faults[:]...); err != nil {
		return nil, err
	}
	return ob, nil
}

// Start implements [clerkinvite.Observer].
func (o *Observer) Start(ctx context.Context, op string) (context.Context, func(err error)) {
	operation, request := strings.CutPrefix(op, "clerk.")
	name, kind := "clerkinvite."+op, trace.SpanKindInternal
	var own []attribute.KeyValue
	switch {
	case request:
		kind, own = trace.SpanKindClient, []attribute.KeyValue{keyOperation.String(operation), keyPeer.String("clerk")}
	case op != "wait":
		own = []attribute.KeyValue{keyVerb.String(op)}
	}
	ctx, span := o.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(own...)) //nolint:spancheck // ended by the returned function
	began := time.Now()                                                                            //nolint:forbidigo // the monotonic clock, for how long things take
	return ctx, func(err error) {                                                                  //nolint:spancheck // the same
		seconds := time.Since(began).Seconds()
		switch {
		case request:
			outcome := requestOutcome(err)
			end(span, outcome, err)
			labels := []attribute.KeyValue{own[0], keyOutcome.String(outcome)}
			if code := statusCode(err); code != 0 {
				labels = append(labels, keyStatus.Int(code))
			}
			o.requests.Record(ctx, seconds, metric.WithAttributes(labels...))
			if outcome == outcomeRateLimited {
				o.limited.Add(ctx, 1, metric.WithAttributes(own[0]))
			}
		case op == "wait":
			outcome := verbOutcome(err)
			end(span, outcome, err)
			o.waits.Record(ctx, seconds, metric.WithAttributes(keyOutcome.String(outcome)))
		default:
			outcome := verbOutcome(err)
			end(span, outcome, err)
			o.verbs.Record(ctx, seconds, metric.WithAttributes(own[0], keyOutcome.String(outcome)))
		}
	}
}

// end sets the span's outcome, without the text of the error, and ends it.
func end(span trace.Span, outcome string, err error) {
	if span.IsRecording() {
		span.SetAttributes(keyOutcome.String(outcome))
		span.SetAttributes(errorAttributes(err)...)
		if failure(outcome) {
			span.SetAttributes(keyErrorType.String(errorType(outcome, err)))
			span.SetStatus(codes.Error, description(outcome, err))
		}
	}
	span.End()
}

// StateChanged implements [clerkinvite.Observer].
func (o *Observer) StateChanged(ctx context.Context, from, to clerkinvite.Status) {
	o.changes.Add(ctx, 1, metric.WithAttributes(keyFrom.String(state(from, "new")), keyTo.String(state(to, "erased"))))
}

// state returns a state as the value of an attribute. A custom store may report unknown states.
func state(s clerkinvite.Status, none string) string {
	switch {
	case s == "":
		return none
	case slices.Contains(clerkinvite.Statuses(), s):
		return string(s)
	default:
		return "other"
	}
}
