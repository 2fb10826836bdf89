// Package otelclerkinvite exports traces and metrics of clerkinvite with OpenTelemetry.
//
//	observer, err := otelclerkinvite.New(nil) // nil: otel's global providers
//	…
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Observer: observer})
//	…
//	stop, err := observer.Watch(store) // gauges of waiting members, read at each collection
//
// Every call of a Service method is a span, with its requests to Clerk as children. Calls,
// requests, state changes and waits are counted. docs/metrics.md in the repository lists
// all names, attributes and values, and has alerts.
//
// Spans and metrics contain no address, link, key, tenant or error text. For an error they
// have its kind, and Clerk's status, code and trace ID. Attributes of metrics have a small,
// fixed set of values.
//
// Do not put an instrumented transport, such as otelhttp's, into the HTTPClient of
// clerkapi: its spans contain request URLs, with the addresses that are looked up.
//
// The package imports the OpenTelemetry API, but not its SDK.
package otelclerkinvite
