// Package otelclerkinvite exports traces and metrics of clerkinvite with OpenTelemetry.
//
//	observer, err := otelclerkinvite.New(nil) // nil: otel's global providers
//	…
//	svc, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Observer: observer})
//	…
//	stop, err := observer.Watch(store) // gauges of waiting members, read at each collection
//
// Every call of a Service method is a span, with its requests to Clerk as children. Calls,
// requests, state changes and waits are counted. alerts.yaml has alerts for Prometheus, and
// docs/runbook.md in the repository says what to do for each.
//
// Spans and metrics contain no address, link, key, tenant or error text. For an error they
// have its kind, and Clerk's status, code and trace ID. Attributes of metrics have a small,
// fixed set of values.
//
// Do not put an instrumented transport, such as otelhttp's, into the HTTPClient of
// clerkapi: its spans contain request URLs, with the addresses that are looked up.
//
// The package imports the OpenTelemetry API, but not its SDK.
//
// # Metrics
//
// These are the names in Prometheus, such as clerkinvite_verb_duration_seconds for
// clerkinvite.verb.duration.
//
//	metric                                         labels                                                                  meaning
//	clerkinvite_verb_duration_seconds              clerkinvite_verb, clerkinvite_outcome                                   calls of Service
//	clerkinvite_clerk_request_duration_seconds     clerkinvite_operation, clerkinvite_outcome, http_response_status_code   requests to Clerk
//	clerkinvite_clerk_rate_limited_total           clerkinvite_operation                                                   responses with 429; normally none without an import
//	clerkinvite_rate_limit_wait_duration_seconds   clerkinvite_outcome                                                     waits in InviteMany and Run
//	clerkinvite_state_changes_total                clerkinvite_from, clerkinvite_to                                        state changes, even if your transaction is rolled back
//	clerkinvite_members_reserved                   none                                                                    reserved members; normally 0, except during imports
//	clerkinvite_members_due                        none                                                                    members that are due; normally 0 within two minutes
//	clerkinvite_members_oldest_due_age_seconds     none                                                                    how long the first of them has been due
//	clerkinvite_members_overdue                    none                                                                    pending members whose invitation has expired; normally near 0
//
// The last four are gauges. They need Watch, and stop at 10,000. All processes report the same
// numbers, so aggregate them with max and not with sum.
//
// # Attributes
//
// In metrics, these attributes have these values. Prometheus's labels have underscores
// instead of dots.
//
//	attribute                   values
//	clerkinvite.verb            the name of a method of Service, such as Invite
//	clerkinvite.operation       FindUsers, GetUser, CreateInvitation, CreateInvitations, ListInvitations, RevokeInvitation, FindMemberships, AddMember, RemoveMember
//	clerkinvite.outcome         see Outcomes
//	clerkinvite.from            new, reserved, pending, active, failed, revoked, expired, removed, other
//	clerkinvite.to              reserved, pending, active, failed, revoked, expired, removed, erased, other
//	http.response.status_code   the response's status, if the request failed
//
// Run and All appear as the methods that they call. A new member did not exist before, an erased
// one no longer exists, and only a custom store reports other. If both states are equal, the
// send, the invitation, the user, the role or the address changed.
//
// # Outcomes
//
// An outcome with the status Error makes its span an error.
//
//	outcome        of                    status   meaning
//	ok             verb, request, wait   Unset    no error; a verb for many people has finished
//	canceled       verb, request, wait   Unset    the caller canceled the call; a request may have taken effect
//	invalid        verb, request         Unset    the input is invalid, and no request was sent
//	duplicate      verb                  Unset    DuplicateEmailError
//	not_found      verb                  Unset    ErrNotFound
//	conflict       verb                  Unset    TransitionError, ErrConflict, ErrLastAdmin or ErrNoLink
//	cooldown       verb                  Unset    CooldownError
//	unconfirmed    verb                  Unset    ErrUnconfirmed, after which Svix repeats the webhook
//	denied         verb                  Unset    the application's error, if its HTTPStatus method returns 4xx
//	refused        verb                  Unset    Clerk does not accept this person
//	rejected       request               Unset    400, 403, 404 or 422 with a Clerk code, usually about one person
//	rate_limited   verb, request         Error    429
//	fault          verb                  Error    Clerk failed, and nothing was sent
//	uncertain      verb                  Error    Clerk's response was lost
//	failed         request               Error    any other response, such as 401, 5xx or a proxy's page
//	no_response    request               Error    the request was sent, but no response came
//	not_sent       request               Error    no connection was made
//	timeout        verb, wait            Error    the deadline passed outside a request
//	error          verb, request         Error    any other error, such as the database's
//
// # Spans
//
//	span                            kind       attributes
//	clerkinvite.<verb>              internal   clerkinvite.verb, clerkinvite.outcome
//	clerkinvite.clerk.<operation>   client     clerkinvite.operation, clerkinvite.outcome, peer.service
//	clerkinvite.wait                internal   clerkinvite.outcome
//
// Spans can also have these attributes: the first three if Clerk responded with an error, and
// error.type at level Error. error.type is the outcome or, for the outcome error, the Go type of the error.
//
//	http.response.status_code, clerkinvite.clerk.code, clerkinvite.clerk.trace_id, error.type
//
// Run creates a Deliver span about every 15 seconds in each process, usually without children.
// Drop it by name with a sampler or in the collector.
package otelclerkinvite
