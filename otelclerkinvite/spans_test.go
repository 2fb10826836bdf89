package otelclerkinvite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/otelclerkinvite"
)

// describe returns a span's attributes as name=value.
func describe(span tracetest.SpanStub) []string {
	var out []string
	for _, a := range span.Attributes {
		out = append(out, string(a.Key)+"="+a.Value.String())
	}
	return out
}

func TestInviteSpans(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	host := sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.spans)).Tracer("host")
	ctx, request := host.Start(t.Context(), "POST /invitations")
	_, err := r.Invite(ctx, person("ada@example.com"))
	require.NoError(t, err)
	request.End()

	spans := r.spans.GetSpans()
	require.Len(t, spans, 4)
	find, create, invite, root := spans[0], spans[1], spans[2], spans[3]
	require.Equal(t, root.SpanContext.SpanID(), invite.Parent.SpanID())
	require.Equal(t, "clerkinvite.Invite", invite.Name)
	require.Equal(t, trace.SpanKindInternal, invite.SpanKind)
	require.ElementsMatch(t, []string{"clerkinvite.verb=Invite", "clerkinvite.outcome=ok"}, describe(invite))
	for name, child := range map[string]tracetest.SpanStub{"FindUsers": find, "CreateInvitation": create} {
		require.Equal(t, "clerkinvite.clerk."+name, child.Name)
		require.Equal(t, trace.SpanKindClient, child.SpanKind)
		require.Equal(t, invite.SpanContext.SpanID(), child.Parent.SpanID())
		require.ElementsMatch(t, []string{"clerkinvite.operation=" + name, "clerkinvite.outcome=ok", "peer.service=clerk"}, describe(child))
		require.Equal(t, codes.Unset, child.Status.Code)
	}
}

func TestClerkFailureSpans(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 401, Code: "clerk_key_invalid", Message: "wrong key"})
	_, err := r.Invite(t.Context(), person("ada@example.com"))
	var api *clerkinvite.APIError
	require.ErrorAs(t, err, &api)
	require.NotEmpty(t, api.TraceID)
	spans := r.spans.GetSpans()
	require.Len(t, spans, 3)
	both := []string{"http.response.status_code=401", "clerkinvite.clerk.code=clerk_key_invalid", "clerkinvite.clerk.trace_id=" + api.TraceID}
	require.Subset(t, describe(spans[1]), append(both, "clerkinvite.outcome=failed", "error.type=failed"))
	require.Subset(t, describe(spans[2]), append(both, "clerkinvite.outcome=fault", "error.type=fault"))
	for _, span := range spans[1:] {
		require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "clerk: HTTP 401 clerk_key_invalid"}, span.Status)
	}

	// A duplicate is not an error of the span.
	r.spans.Reset()
	_, err = r.Reserve(t.Context(), person("ada@example.com"))
	require.Error(t, err)
	require.Len(t, r.spans.GetSpans(), 1)
	require.Equal(t, codes.Unset, r.spans.GetSpans()[0].Status.Code)
	require.Contains(t, describe(r.spans.GetSpans()[0]), "clerkinvite.outcome=duplicate")
}

// The library's errors are not confused with those of the application or the database.
func TestOutcomesOfTheLibrarysErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for err, outcome := range map[error]string{
		clerkinvite.ErrNotFound: "not_found", clerkinvite.ErrConflict: "conflict", clerkinvite.ErrLastAdmin: "conflict", clerkinvite.ErrNoLink: "conflict",
		clerkinvite.ErrUnconfirmed: "unconfirmed", forbidden{}: "denied", errors.New("the database is down"): "error",
	} {
		r.spans.Reset()
		_, ended := r.Start(t.Context(), "Link")
		ended(fmt.Errorf("%w: because", err))
		span := r.spans.GetSpans()[0]
		require.Contains(t, describe(span), "clerkinvite.outcome="+outcome)
		require.Equal(t, outcome == "error", span.Status.Code == codes.Error, outcome)
	}
}

// hostile are texts that a response, a store or a host could put into an error.
var hostile = []string{
	"eve@example.com", "eve%40example.com", "https://accounts.example.com/v1/tickets/accept?ticket=canary", "sk_live_canary", "whsec_canary",
	"eyJhbGciOiJSUzI1NiJ9.canary.canary", "{\"email\":\"eve@example.com\"}", strings.Repeat("canary", 200), "canary\n at canary",
}

// clientError is a host's error with a 4xx status and a secret in its text.
type clientError struct{ text string }

func (e clientError) Error() string   { return e.text }
func (e clientError) HTTPStatus() int { return http.StatusBadRequest }

func TestNothingPrivateIsExported(t *testing.T) {
	t.Parallel()
	r := newLifeRig(t)
	live(t, r)
	// Errors of a store or Authorize, and of the library, from every call that can fail.
	for _, text := range hostile {
		for _, cause := range []error{
			errors.New(text), fmt.Errorf("wrapped %w", errors.New(text)), clientError{text}, errors.Join(errors.New(text), clientError{text}),
			&clerkinvite.APIError{StatusCode: 422, Code: text, Message: text, LongMessage: text, TraceID: text, Meta: map[string]any{text: text}, Err: errors.New(text)},
			&clerkinvite.APIError{Code: text, TraceID: text, Err: errors.New(text)},
			&clerkinvite.APIError{StatusCode: 429, Code: text, Message: text, TraceID: text},
			&clerkinvite.APIError{StatusCode: 999, Message: text},
			&clerkinvite.DuplicateEmailError{Ref: clerkinvite.Ref{TenantID: text, Email: text}, Member: &clerkinvite.Member{TenantID: text, Email: text}},
			&clerkinvite.InvalidParamsError{Field: text, Reason: text},
		} {
			api := clerkinvitetest.ClerkFuncs{
				FindUsersFunc: func(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) { return nil, cause },
			}
			svc := r.service(t, api, nil)
			_, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "tenant-canary", Email: "eve@example.com"})
			require.Error(t, err)
			_, err = svc.InviteMany(t.Context(), []clerkinvite.InviteParams{{TenantID: "tenant-canary", Email: "mel@example.com"}}, nil)
			_ = err
			refusing := r.service(t, api, func(cfg *clerkinvite.Config) {
				cfg.Authorize = func(context.Context, *clerkinvite.InviteParams) error { return cause }
			})
			_, err = refusing.Reserve(t.Context(), person("eve@example.com"))
			require.Error(t, err)
			for _, op := range []string{"Invite", "clerk.CreateInvitation", "wait"} {
				_, end := r.Observer.Start(t.Context(), op)
				end(&clerkinvite.ClerkInvitationError{Op: text, Outcome: clerkinvite.Uncertain, Member: &clerkinvite.Member{Email: text}, Err: cause})
			}
			r.StateChanged(t.Context(), clerkinvite.Status(text), clerkinvite.Status(text))
		}
	}

	var exported strings.Builder
	for _, span := range r.spans.GetSpans() {
		fmt.Fprintf(&exported, "%s %v %v %v %v\n", span.Name, describe(span), span.Events, span.Links, span.Status)
	}
	var collected metricdata.ResourceMetrics
	require.NoError(t, r.reader.Collect(t.Context(), &collected))
	asJSON, err := json.Marshal(collected.ScopeMetrics)
	require.NoError(t, err)
	exported.Write(asJSON)
	resp, err := http.Get(r.scrapes)
	require.NoError(t, err)
	defer resp.Body.Close()
	scraped, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	exported.Write(scraped)
	require.Greater(t, exported.Len(), 100_000, "output to search")
	for _, private := range []string{"canary", "example.com", "@", "%40", "ticket=", "sk_", "whsec", "eyJ", "acme"} {
		at := strings.Index(exported.String(), private)
		require.Negative(t, at, "%q in: %s", private, exported.String()[max(0, at-200):min(exported.Len(), max(0, at)+100)])
	}
	require.NotContains(t, strings.ReplaceAll(exported.String(), "https://github.com/", ""), "://")
}

func TestConcurrentCallsAreAllCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	svc := r.service(t, r.clerk, func(cfg *clerkinvite.Config) { cfg.Observer = r.Observer })
	stop, err := r.Watch(r.store)
	require.NoError(t, err)
	const callers, calls = 16, 10
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for k := range calls {
				_, _ = svc.Invite(context.Background(), person(fmt.Sprintf("p%d-%d@example.com", i, k)))
				_, _ = svc.Invite(context.Background(), person(fmt.Sprintf("p%d@example.com", k)))
			}
		})
	}
	for range 20 { // and collections
		r.scrape(t)
	}
	wg.Wait()
	require.NoError(t, stop())

	seen := make(map[string]uint64)
	for name, family := range r.scrape(t) {
		for _, sample := range family.GetMetric() {
			seen[name] += sample.GetHistogram().GetSampleCount() + uint64(sample.GetCounter().GetValue())
		}
	}
	require.EqualValues(t, 2*callers*calls, seen["clerkinvite_verb_duration_seconds"])
	require.EqualValues(t, 2*(callers*calls+calls), seen["clerkinvite_clerk_request_duration_seconds"])
	require.EqualValues(t, 2*(callers*calls+calls), seen["clerkinvite_state_changes_total"])
	verbs := make(map[trace.SpanID]bool)
	requests := 0
	for _, span := range r.spans.GetSpans() {
		if span.SpanKind == trace.SpanKindInternal {
			verbs[span.SpanContext.SpanID()] = true
		}
	}
	for _, span := range r.spans.GetSpans() {
		if span.SpanKind == trace.SpanKindClient {
			requests++
			require.True(t, verbs[span.Parent.SpanID()], "a request without a verb")
		}
	}
	require.Len(t, verbs, 2*callers*calls)
	require.Equal(t, 2*(callers*calls+calls), requests)
}

// Without options, the observer uses otel's global providers, even if they are set later.
func TestGlobalProviders(t *testing.T) {
	observer, err := otelclerkinvite.New(nil)
	require.NoError(t, err)
	stop, err := observer.Watch(clerkinvitetest.NewMemoryStore())
	require.NoError(t, err)
	svc, err := clerkinvite.New(clerkinvite.Config{API: clerkinvitetest.NewClerk(), Store: clerkinvitetest.NewMemoryStore(), Observer: observer})
	require.NoError(t, err)
	_, err = svc.Invite(t.Context(), person("ada@example.com"))
	require.NoError(t, err)

	o := newTelemetry(t, nil)
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(o.spans))
	otel.SetTracerProvider(tracers)
	otel.SetMeterProvider(o.provider)
	_, err = svc.Invite(t.Context(), person("bob@example.com"))
	require.NoError(t, err)
	require.Len(t, o.spans.GetSpans(), 3)
	families := o.scrape(t)
	require.Contains(t, families, "clerkinvite_verb_duration_seconds")
	require.Contains(t, families, "clerkinvite_members_due")
	require.NoError(t, stop())
	require.NotContains(t, o.scrape(t), "clerkinvite_members_due")
}
