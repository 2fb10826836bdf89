package clerkapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/scrub"
	"github.com/clerkinvite/clerkinvite/internal/wire"
)

// maxRetryAfter limits the Retry-After of a broken proxy. Clerk documents windows of ten
// seconds and one hour.
const maxRetryAfter = 24 * time.Hour

// newAPIError returns an error from the status and headers of a response.
func newAPIError(status int, h http.Header) *clerkinvite.APIError {
	return &clerkinvite.APIError{StatusCode: status, TraceID: cmp.Or(h.Get("Clerk-Trace-Id"), h.Get("Cf-Ray")), RetryAfter: retryAfter(h)}
}

// retryAfter reads Retry-After: seconds, or a date, which it compares with the response's
// own Date. It returns 0 if the header is missing or cannot be read, and nothing negative.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	// ParseFloat returns an infinity for a number out of range.
	if seconds, err := strconv.ParseFloat(value, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		if !(seconds > 0) { // NaN too
			return 0
		}
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

func unreadable(err error) error { return fmt.Errorf("the response cannot be read: %w", err) }

type wireError struct {
	Code        string
	Message     string
	LongMessage string
	Meta        map[string]any
}

func readErrors(o wire.Object) []wireError {
	var all []wireError
	for _, item := range o.List("errors") {
		if e := wire.Parse(item); e != nil {
			all = append(all, wireError{e.Text("code"), e.Text("message"), e.Text("long_message"), e.Map("meta")})
		}
	}
	return all
}

// readErrorBody completes api from the body of an error response.
func readErrorBody(api *clerkinvite.APIError, h http.Header, body []byte) {
	w := wire.Parse(body)
	errs := readErrors(w)
	api.TraceID = cmp.Or(h.Get("Clerk-Trace-Id"), w.Text("clerk_trace_id"), api.TraceID)
	if len(errs) == 0 {
		api.Err = unreadable(errors.New("it is not a Clerk error"))
		return
	}
	// The first error counts, unless another says that the address already has an invitation, a
	// user or a membership. That fact must be looked up, no matter what else is wrong.
	chosen := errs[0]
	if i := slices.IndexFunc(errs, wireError.duplicate); i >= 0 {
		chosen = errs[i]
	}
	api.Code, api.Message, api.LongMessage = chosen.Code, chosen.Message, chosen.LongMessage
	meta := make(map[string]any)
	maps.Copy(meta, w.Map("meta"))
	maps.Copy(meta, chosen.Meta)
	// A bulk request can have one error per address. Join their lists.
	for _, key := range []string{"email_addresses", "identifiers"} {
		var all []any
		for _, e := range errs {
			if e.Code == chosen.Code {
				all = append(all, list(e.Meta[key])...)
			}
		}
		if len(all) > 0 {
			meta[key] = all
		}
	}
	if len(meta) > 0 {
		api.Meta = meta
	}
}

func (e wireError) duplicate() bool {
	switch e.Code {
	case "duplicate_record", "form_identifier_exists", "organization_invitation_not_unique", "already_a_member_in_organization":
		return true
	}
	return false
}

// list returns v if it is a list, otherwise a list of v.
func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		return []any{v}
	}
}

// transportError means that there was no complete response. Its text contains no URL and no address.
type transportError struct {
	text    string
	timeout bool
	err     error // nil if it would look like the end of the caller's context, or its text may be private
}

func newTransportError(err error) *transportError {
	// The text of a url.Error contains the URL with the addresses of the look-up.
	for u := (*url.Error)(nil); errors.As(err, &u) && u.Err != nil; {
		err = u.Err
	}
	e := &transportError{text: scrub.Text(err.Error()), err: err}
	var timeout net.Error
	e.timeout = errors.As(err, &timeout) && timeout.Timeout()
	// Timeouts of net and net/http match context.DeadlineExceeded.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || e.text != err.Error() {
		e.err = nil
	}
	return e
}

func (e *transportError) Error() string { return e.text }

// Timeout reports whether a time limit ended the request.
func (e *transportError) Timeout() bool { return e.timeout }

func (e *transportError) Unwrap() error { return e.err }
