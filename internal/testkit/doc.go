// Package testkit is the rig that tests of this repository share: a Service over the fake Clerk
// and a store, a store on PostgreSQL, rows to fill it with, and tracers of its statements.
package testkit
