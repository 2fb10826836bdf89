package clerkapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerkinvite/clerkinvite"
)

// How much of an answer is read. The largest page of users, 500 with 3 × 8 KB of
// metadata and their accounts, fits.
const (
	maxList  = 32 << 20
	maxOne   = 2 << 20 // 10 invitations with 8 KB of metadata each
	maxError = 256 << 10
)

// exchange is one request and its answer. It stands between the SDK and the network
// as the SDK's http.RoundTripper, because the SDK does not pass on what has to be
// known: status and headers of an error that is no JSON, that a 3xx or an empty 200
// is no success, and whether the request was sent at all.
type exchange struct {
	send func(*http.Request) (*http.Response, error)

	begun     bool        // the SDK got as far as sending
	wanted    atomic.Bool // the transport has looked for a connection …
	connected atomic.Bool // … and got one

	answer   *clerkinvite.APIError // what the answer says if it is a failure; nil until there is one
	complete bool                  // the answer was read to its end, or to our limit
	failed   bool                  // and it is a failure, which answer describes
}

// call makes one request through the SDK and hands the body of a 2xx to decode.
// The error is nil or an *APIError.
func (c *Client) call(ctx context.Context, limit timeLimit, req *clerk.APIRequest, decode func([]byte) error) error {
	if err := ended(ctx); err != nil {
		return &clerkinvite.APIError{NotSent: true, Err: err}
	}
	timed, cancel := context.WithTimeout(ctx, limit.d)
	defer cancel()
	x := &exchange{send: c.send}
	traced := httptrace.WithClientTrace(timed, &httptrace.ClientTrace{
		GetConn: func(string) { x.wanted.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) },
	})
	got := &reader{decode: decode}
	err := c.backend(x).Call(traced, req, got)

	switch {
	case x.failed:
		return x.answer
	case x.complete && err == nil && got.done:
		return nil
	case x.complete:
		if err == nil {
			err = errors.New("it is empty")
		}
		x.answer.Err = unreadable(err)
		return x.answer
	}
	failed := x.answer
	if failed == nil {
		failed = &clerkinvite.APIError{
			// A transport that does not report its connections proves nothing.
			NotSent: !x.begun || x.wanted.Load() && !x.connected.Load(),
		}
	}
	switch {
	case ended(ctx) != nil:
		failed.Err = ended(ctx)
	case ended(timed) != nil:
		failed.Err = &transportError{text: fmt.Sprintf("no complete answer within %s, the limit that %s sets", limit.d, limit.option), timeout: true}
	default:
		failed.Err = newTransportError(err)
	}
	return failed
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(in *http.Request) (*http.Response, error) {
	x.begun = true
	req := in.Clone(in.Context())
	if in.Body != nil {
		body, err := io.ReadAll(in.Body)
		_ = in.Body.Close()
		if err != nil {
			return nil, err
		}
		// A known length spares proxies the chunked encoding. Without GetBody net/http
		// cannot send a POST again, as HTTP/2 does even when the peer has reset a stream
		// that it may have served.
		req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	resp, err := x.send(req)
	if err != nil || resp == nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()

	x.answer = newAPIError(resp.StatusCode, resp.Header)
	limit := maxOne
	switch {
	case resp.StatusCode/100 != 2:
		limit = maxError
	case in.Method == http.MethodGet:
		limit = maxList
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	x.complete = true
	if len(body) > limit {
		x.failed, x.answer.Err = true, unreadable(fmt.Errorf("it is larger than %d bytes", limit))
	} else if resp.StatusCode/100 != 2 {
		x.failed = true
		readErrorBody(x.answer, resp.Header, body)
	}
	if x.failed {
		return nil, x.answer // for the SDK a broken connection, so no redirect is followed either
	}
	out := *resp
	out.Body = io.NopCloser(bytes.NewReader(body))
	return &out, nil
}

// reader is the SDK's ResponseReader. The SDK does not call it for an empty body.
type reader struct {
	decode func([]byte) error
	done   bool
}

func (r *reader) Read(*clerk.APIResponse) {}

func (r *reader) UnmarshalJSON(body []byte) error {
	r.done = true
	return r.decode(body)
}

// ended returns nil while ctx lasts, then an error with ctx.Err and its cause.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if deadline, ok := ctx.Deadline(); err == nil && ok && !time.Now().Before(deadline) {
		err = context.DeadlineExceeded // a dialer looks at the deadline itself and can be earlier than ctx
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("the caller's context ended: %w: %w", err, cause)
	}
	return fmt.Errorf("the caller's context ended: %w", err)
}

// lookUp runs a look-up, and repeats it twice at most while the failure is one that
// may pass and the caller's deadline leaves time.
func (c *Client) lookUp(ctx context.Context, once func() error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.Multiplier = c.pause, 3
	opts := []backoff.RetryOption{backoff.WithBackOff(pause), backoff.WithMaxTries(3)}
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, backoff.WithMaxElapsedTime(time.Until(deadline)))
	}
	var last error // backoff's own error can be the context's, or one that it has wrapped
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = once()
		if last != nil && !mayPass(last) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, opts...)
	if err == nil {
		return nil
	}
	var api *clerkinvite.APIError
	if done := ended(ctx); done != nil && mayPass(last) && errors.As(last, &api) {
		api.Err = done // during the pause
	}
	return last
}

// mayPass reports whether a look-up that failed with err is worth repeating at once.
// Rate limits are not: the service keeps them, for all processes.
func mayPass(err error) bool {
	var api *clerkinvite.APIError
	var broken *transportError
	switch {
	case !errors.As(err, &api) || api.RetryAfter > 0:
		return false
	case api.StatusCode == 0 || api.StatusCode/100 == 2:
		return errors.As(err, &broken)
	case api.StatusCode == http.StatusConflict:
		return api.Code == "resource_locked" || api.Code == "conflict"
	default:
		return api.StatusCode >= 500
	}
}
