package otelclerkinvite_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/otelclerkinvite"
)

// BenchmarkInvite observes a verb, two requests and two state changes per Invite.
func BenchmarkInvite(b *testing.B) {
	observer := func(opts *otelclerkinvite.Options) clerkinvite.Observer {
		o, err := otelclerkinvite.New(opts)
		require.NoError(b, err)
		return o
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	for _, bench := range []struct {
		name     string
		observer clerkinvite.Observer
	}{
		{"none", nil},
		{"noop", observer(&otelclerkinvite.Options{TracerProvider: tracenoop.NewTracerProvider(), MeterProvider: metricnoop.NewMeterProvider()})},
		{"sdk without sampling", observer(&otelclerkinvite.Options{
			TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())), MeterProvider: meters})},
		{"sdk", observer(&otelclerkinvite.Options{TracerProvider: sdktrace.NewTracerProvider(), MeterProvider: meters})},
	} {
		b.Run(bench.name, func(b *testing.B) {
			n := 0
			api := clerkinvitetest.ClerkFuncs{
				FindUsersFunc: noUsers,
				CreateInvitationFunc: func(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
					return &clerkinvite.Invitation{ID: "inv_" + strconv.Itoa(n), Status: clerkinvite.InvitationPending}, nil
				},
			}
			svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvitetest.NewMemoryStore(), Observer: bench.observer})
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				n++
				if _, err := svc.Invite(b.Context(), person(strconv.Itoa(n)+"@example.com")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
