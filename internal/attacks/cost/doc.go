// Package cost tests what each verb costs: requests to Clerk, statements, allocations, and the plans of
// the statements. It has tests only. docs/performance.md has the rows that most readers need.
package cost
