package otelclerkinvite_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
	"github.com/clerkinvite/clerkinvite/otelclerkinvite"
)

// handled has the errors of otel's only error handler. Each test looks for its own.
var handled struct {
	sync.Mutex

	errs []error
}

func TestMain(m *testing.M) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		handled.Lock()
		defer handled.Unlock()
		handled.errs = append(handled.errs, err)
	}))
	os.Exit(pgtest.Main(m))
}

// telemetry is an Observer and its output.
type telemetry struct {
	*otelclerkinvite.Observer

	spans    *tracetest.InMemoryExporter
	provider *sdkmetric.MeterProvider
	reader   *sdkmetric.ManualReader
	scrapes  string // the URL that Prometheus would scrape
}

func newTelemetry(t *testing.T, now func() time.Time) *telemetry {
	t.Helper()
	o := &telemetry{spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader()}
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	require.NoError(t, err)
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(o.spans))
	o.provider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithReader(o.reader))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, tracers.Shutdown(context.Background()))
		require.NoError(t, o.provider.Shutdown(context.Background()))
	})
	o.scrapes = server.URL
	o.Observer, err = otelclerkinvite.New(&otelclerkinvite.Options{TracerProvider: tracers, MeterProvider: o.provider, Now: now})
	require.NoError(t, err)
	return o
}

// scrape returns the metrics that Prometheus would scrape.
func (o *telemetry) scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	resp, err := http.Get(o.scrapes)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	require.NoError(t, err)
	return families
}

// rig is a service that uses the real adapter and a fake Clerk over HTTP.
type rig struct {
	*clerkinvite.Service
	*telemetry

	api    *clerkapi.Client
	clerk  *clerkinvitetest.Clerk
	store  *clerkinvitetest.MemoryStore
	clock  *clerkinvitetest.Clock
	onWait func() // called when a wait begins, unless nil
}

// Start implements clerkinvite.Observer.
func (r *rig) Start(ctx context.Context, op string) (context.Context, func(error)) {
	ctx, end := r.telemetry.Start(ctx, op)
	if op == "wait" && r.onWait != nil {
		r.onWait()
	}
	return ctx, end
}

func newRig(t *testing.T, change func(*clerkinvite.Config)) *rig {
	t.Helper()
	r := &rig{clerk: clerkinvitetest.NewClerk(), store: clerkinvitetest.NewMemoryStore(), clock: clerkinvitetest.NewClock(time.Now())}
	r.telemetry = newTelemetry(t, r.clock.Now)
	r.clerk.SetNow(r.clock.Now)
	server := httptest.NewServer(r.clerk.Handler())
	t.Cleanup(server.Close)
	var err error
	r.api, err = clerkapi.New("sk_test_1", &clerkapi.Options{BaseURL: server.URL + "/v1"})
	require.NoError(t, err)
	r.Service = r.service(t, r.api, change)
	return r
}

// service returns another service with the same store and observer.
func (r *rig) service(t *testing.T, api clerkinvite.ClerkAPI, change func(*clerkinvite.Config)) *clerkinvite.Service {
	t.Helper()
	cfg := clerkinvite.Config{API: api, Store: r.store, Now: r.clock.Now, Observer: r}
	if change != nil {
		change(&cfg)
	}
	svc, err := clerkinvite.New(cfg)
	require.NoError(t, err)
	return svc
}

func person(email string) clerkinvite.InviteParams {
	return clerkinvite.InviteParams{TenantID: "acme", Email: email}
}

func ref(email string) clerkinvite.Ref { return clerkinvite.Ref{TenantID: "acme", Email: email} }

// must returns the value of a call that must succeed.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		require.NoError(t, err)
		return v
	}
}
