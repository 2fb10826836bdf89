package clerkapi

import (
	"cmp"
	"context"
	"encoding/json"
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
)

// maxRetryAfter bounds what a broken proxy can ask for. Clerk's documented windows
// are ten seconds and one hour.
const maxRetryAfter = 24 * time.Hour

// newAPIError returns what is known of an answer before its body is read.
func newAPIError(status int, h http.Header) *clerkinvite.APIError {
	return &clerkinvite.APIError{StatusCode: status, TraceID: cmp.Or(h.Get("Clerk-Trace-Id"), h.Get("Cf-Ray")), RetryAfter: retryAfter(h)}
}

// retryAfter reads Retry-After: seconds, or a date that is compared with the
// answer's own Date. It is 0 if there is none or it cannot be read, and never negative.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	// A number out of range comes with its nearest value, infinity.
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

// unreadable says why a complete answer is of no use.
func unreadable(err error) error { return fmt.Errorf("the answer cannot be read: %w", err) }

type wireError struct {
	Code        string         `json:"code"`
	Message     string         `json:"message"`
	LongMessage string         `json:"long_message"`
	Meta        map[string]any `json:"meta"`
}

// readErrorBody completes api from the body of an answer that is no success.
func readErrorBody(api *clerkinvite.APIError, h http.Header, body []byte) {
	var w struct {
		Errors  []wireError    `json:"errors"`
		Meta    map[string]any `json:"meta"`
		TraceID string         `json:"clerk_trace_id"`
	}
	// Of JSON with a field of the wrong type Unmarshal still fills the others, and
	// then returns an error: what it filled is worth more here.
	_ = json.Unmarshal(body, &w)
	api.TraceID = cmp.Or(h.Get("Clerk-Trace-Id"), w.TraceID, api.TraceID)
	if len(w.Errors) == 0 {
		api.Err = unreadable(errors.New("it is no error of Clerk's"))
		return
	}
	// Of several errors the first one counts, unless one says that the address has an
	// invitation or a user already: that is a fact to look up, whatever else is wrong.
	chosen := w.Errors[0]
	if i := slices.IndexFunc(w.Errors, wireError.held); i >= 0 {
		chosen = w.Errors[i]
	}
	api.Code, api.Message, api.LongMessage = chosen.Code, chosen.Message, chosen.LongMessage
	meta := make(map[string]any)
	maps.Copy(meta, w.Meta)
	maps.Copy(meta, chosen.Meta)
	// A bulk request can have one error for each address: their lists are joined.
	for _, key := range []string{"email_addresses", "identifiers"} {
		var all []any
		for _, e := range w.Errors {
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

func (e wireError) held() bool {
	return e.Code == "duplicate_record" || e.Code == "form_identifier_exists"
}

// list returns v as a list: itself, a single value, or nothing.
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

// transportError says that no complete answer came, in a text without URL and address.
type transportError struct {
	text    string
	timeout bool
	err     error // nil if it would pass for the end of the caller's context, or says what text must not
}

func newTransportError(err error) *transportError {
	// url.Error's text is the whole URL, with the addresses that were looked up.
	for u := (*url.Error)(nil); errors.As(err, &u) && u.Err != nil; {
		err = u.Err
	}
	e := &transportError{text: scrub.Text(err.Error()), err: err}
	var timeout net.Error
	e.timeout = errors.As(err, &timeout) && timeout.Timeout()
	// The timers of net and net/http claim to be context.DeadlineExceeded.
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || e.text != err.Error() {
		e.err = nil
	}
	return e
}

func (e *transportError) Error() string { return e.text }

// Timeout reports whether it was a timer that ended the request.
func (e *transportError) Timeout() bool { return e.timeout }

func (e *transportError) Unwrap() error { return e.err }
