package clerkapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// FuzzErrorResponse responds to a create with any status, headers and body. A request that Clerk
// may have carried out must never count as refused, and no error, log or row may contain a
// secret from the response.
func FuzzErrorResponse(f *testing.F) {
	const leak = `key ` + key + ` of <` + email + `> https://clerk.example.com/v1/tickets/accept?ticket=t0k3n`
	bodies := []string{
		"", "null", "{}", "[]", `"`, "<html>" + leak, "\xff\x00", anInv, `{"errors":[]}`, `{"errors":null}`, `{"errors":[null]}`, `{"errors":[{}]}`,
		`{"errors":{"code":"not_allowed_access"}}`, `{"Errors":[{"Code":"NOT_ALLOWED_ACCESS"}]}`, `{"errors":[{"code":7,"message":[]},{"code":"not_allowed_access"}]}`,
		`{"errors":[{"code":"` + leak + `","message":"` + leak + `","long_message":"` + leak + `"}],"clerk_trace_id":"` + leak + `"}`,
		`{"status":422,"http_status":422,"errors":[{"code":"not_allowed_access"}]}`,
		clerkError("not_allowed_access", ""), clerkError("form_param_format_invalid", `{"param_name":"email_address"}`),
		clerkError("form_param_format_invalid", `{"param_name":"redirect_url"}`), clerkError("x", `{"email_addresses":["`+email+`"]}`),
		clerkError("x", `{"email_addresses":"`+email+`"}`), clerkError("x", `{"identifiers":[["`+email+`"]]}`),
		clerkError("duplicate_record", `{"email_addresses":["`+email+`"]}`), clerkError("form_identifier_exists", `{"param_name":"email_address"}`),
		clerkError("user_quota_exceeded", `{"param_name":"email_address"}`), clerkError("dev_monthly_email_limit_exceeded", `{"param_name":"email_address"}`),
		clerkError("first", `{"param_name":"email_address"}`, "duplicate_record", ""), strings.Repeat(`{"errors":[{"meta":`, 2000),
		strings.Replace(anInv, "inv_1", "../users", 1), strings.Replace(anInv, "1780000000123", "1e300", 1),
	}
	for _, body := range bodies {
		for _, status := range []int{200, 301, 400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 503} {
			f.Add(status, "7", "trace", []byte(body))
		}
	}
	for _, after := range []string{"-1", "1e300", "NaN", "Inf", "0x1p9", "Sun, 06 Nov 1994 08:49:37 GMT", leak, "\r\n"} {
		f.Add(429, after, leak+"\nlevel=ERROR msg=forged", []byte(clerkError("too_many_requests", "")))
	}
	for _, status := range []int{-1, 0, 99, 100, 101, 204, 299, 304, 399, 418, 451, 499, 599, 600, 999, 1 << 40} {
		f.Add(status, "", "", []byte(clerkError("not_allowed_access", `{"param_name":"email_address"}`)))
	}
	f.Fuzz(func(t *testing.T, status int, retryAfter, trace string, body []byte) {
		c, err := clerkapi.New(key, &clerkapi.Options{HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodGet { // no users and no invitations
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("[]"))}, nil
			}
			h := http.Header{"Retry-After": {retryAfter}, "Clerk-Trace-Id": {trace}}
			return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})}})
		require.NoError(t, err)
		c.SetPause(time.Nanosecond)
		svc, err := clerkinvite.New(clerkinvite.Config{API: c, Store: clerkinvitetest.NewMemoryStore()})
		require.NoError(t, err)

		m, err := svc.Invite(context.Background(), clerkinvite.InviteParams{TenantID: "acme", Email: email})
		if err == nil {
			require.Equal(t, 2, status/100)
			require.NotEmpty(t, m.InvitationID)
			require.Equal(t, clerkinvite.StatusPending, m.Status)
			return
		}
		row, findErr := svc.Get(context.Background(), clerkinvite.Ref{TenantID: "acme", Email: email})
		require.NoError(t, findErr, "the row stays")
		for _, text := range append(texts(err), row.Reason) {
			for _, private := range []string{key, email, "ticket=t0k3n", "https://clerk"} {
				if strings.Contains(text, private) {
					t.Fatalf("%q is in %q", private, text)
				}
			}
			require.NotContains(t, text, "\nlevel=", "a log line cannot be forged")
		}
		wait, _ := clerkinvite.RetryAfter(err)
		require.GreaterOrEqual(t, wait, time.Duration(0))
		require.LessOrEqual(t, wait, 24*time.Hour)

		var failed *clerkinvite.ClerkInvitationError
		require.ErrorAs(t, err, &failed)
		want := referenceOutcomes(status, body)
		require.Contains(t, want, failed.Outcome, "HTTP %d %q", status, body)
		_, message := clerkinvite.HTTPError(err)
		if failed.Outcome == clerkinvite.OutcomeRefused {
			require.Equal(t, clerkinvite.StatusFailed, row.Status)
			require.Equal(t, "invitation refused for this address", message)
		} else {
			require.Equal(t, clerkinvite.StatusReserved, row.Status, "Deliver tries again")
			require.True(t, row.Due(), "Deliver tries again")
			require.Equal(t, "invitation service unavailable; the invitation is saved and will be retried", message)
		}
		if failed.Outcome == clerkinvite.OutcomeUncertain {
			require.NotNil(t, row.ClaimedUntil, "the lease must end before the next attempt")
		} else {
			require.Nil(t, row.ClaimedUntil)
		}
	})
}

// referenceOutcomes returns the outcomes that are possible for a status and, where it matters, a body.
func referenceOutcomes(status int, body []byte) []clerkinvite.Outcome {
	switch {
	case status/100 != 4 || status == 408:
		return []clerkinvite.Outcome{clerkinvite.OutcomeUncertain}
	case status == 401, status == 409, status == 429, !mayRefuse(body):
		return []clerkinvite.Outcome{clerkinvite.OutcomeFault}
	}
	return []clerkinvite.Outcome{clerkinvite.OutcomeFault, clerkinvite.OutcomeRefused}
}

// mayRefuse reports whether a body may be about one person: it is a Clerk error that is not
// only about a quota and that names someone.
func mayRefuse(body []byte) bool {
	var e struct {
		Errors []struct {
			Code string
			Meta map[string]any
		}
		Meta map[string]any
	}
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &e); err != nil && !errors.As(err, &wrongType) {
		return false
	}
	for _, one := range e.Errors {
		if one.Code == "user_quota_exceeded" || one.Code == "dev_monthly_email_limit_exceeded" {
			continue
		}
		if one.Code == "not_allowed_access" || one.Meta != nil || e.Meta != nil {
			return true
		}
	}
	return false
}
