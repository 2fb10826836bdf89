package otelclerkinvite_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/otelclerkinvite"
)

// invite is an observed program: it invites Ada twice and reserves Bob.
func invite(ctx context.Context, provider metric.MeterProvider, scrape func()) error {
	api, store := clerkinvitetest.NewClerk(), clerkinvitetest.NewMemoryStore()
	// With nil, New uses otel's global providers, even if they are set later.
	observer, err := otelclerkinvite.New(&otelclerkinvite.Options{MeterProvider: provider})
	if err != nil {
		return err
	}
	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Observer: observer})
	if err != nil {
		return err
	}
	stop, err := observer.Watch(store) // the gauges; a PgxStore or a MemoryStore
	if err != nil {
		return err
	}
	defer stop()

	ada := clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	_, err = svc.Invite(ctx, ada)
	if err != nil {
		return err
	}
	_, err = svc.Invite(ctx, ada)
	fmt.Println(clerkinvite.HTTPError(err))
	if _, err := svc.Reserve(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: "bob@example.com"}); err != nil {
		return err
	}
	scrape()
	return nil
}

// scrape prints some metrics in the format that Prometheus scrapes.
func scrape(url string) {
	resp, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), "{")
		switch name {
		case "clerkinvite_members_reserved 1", "clerkinvite_state_changes_total", "clerkinvite_verb_duration_seconds_count":
			fmt.Println(lines.Text())
		}
	}
}

func Example() {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		log.Fatal(err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()

	if err := invite(context.Background(), provider, func() { scrape(server.URL) }); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 409 ada@example.com is already invited to this tenant
	// clerkinvite_members_reserved 1
	// clerkinvite_state_changes_total{clerkinvite_from="new",clerkinvite_to="reserved"} 2
	// clerkinvite_state_changes_total{clerkinvite_from="reserved",clerkinvite_to="pending"} 1
	// clerkinvite_verb_duration_seconds_count{clerkinvite_outcome="duplicate",clerkinvite_verb="Invite"} 1
	// clerkinvite_verb_duration_seconds_count{clerkinvite_outcome="ok",clerkinvite_verb="Invite"} 1
	// clerkinvite_verb_duration_seconds_count{clerkinvite_outcome="ok",clerkinvite_verb="Reserve"} 1
}
