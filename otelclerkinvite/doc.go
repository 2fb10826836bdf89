// Package otelclerkinvite gives traces and metrics of clerkinvite to OpenTelemetry.
//
//	observer, err := otelclerkinvite.New(nil) // nil: otel's global providers
//	…
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Observer: observer})
//	…
//	stop, err := observer.Watch(store) // gauges of what waits, read from the database at each collection
//
// Every verb of a Service is a span with its requests to Clerk as children, and every
// verb, request, move and wait is counted. docs/metrics.md of the repository lists all
// names, attributes and values, and has alerts.
//
// No span and no metric holds an address, a link, a key, a tenant or the text of an
// error: of an error there is its kind, and Clerk's status, code and trace id. The
// attributes of metrics have a fixed, small number of values.
//
// Do not put an instrumented transport, such as that of otelhttp, into the HTTPClient of
// clerkapi: its spans hold the URL of each request, with the addresses that are looked up.
//
// The package imports the API of OpenTelemetry and not its SDK.
package otelclerkinvite
