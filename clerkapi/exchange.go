package clerkapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerkinvite/clerkinvite"
)

// Limits of a response's body.
const (
	maxList  = 32 << 20 // 500 users with 3 × 8 KB of metadata and their accounts
	maxOne   = 2 << 20  // 10 invitations with 8 KB of metadata each
	maxError = 256 << 10
)

// exchange is one request and its response. It is the SDK's http.RoundTripper, because the
// SDK hides facts that the library needs: the status and headers of errors that are not JSON,
// 3xx and empty responses, which are not a success, and whether the request was sent.
type exchange struct {
	send func(*http.Request) (*http.Response, error)

	started   bool        // the SDK called RoundTrip
	wanted    atomic.Bool // the transport asked for a connection …
	connected atomic.Bool // … and got one

	response *clerkinvite.APIError // nil before the response; an error only if failed
	complete bool                  // the body was read to its end, or to our limit
	failed   bool                  // a complete response that is not a success
}

// call makes one request through the SDK and passes the body of a 2xx to decode.
// Its error is an *APIError.
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
		return x.response
	case x.complete && err == nil && got.done:
		return nil
	case x.complete:
		if !got.done { // the SDK's text would contain a part of the body
			err = errors.New("the body is empty or not JSON")
		}
		x.response.Err = unreadable(err)
		return x.response
	}
	failed := x.response // incomplete
	if failed == nil {
		failed = &clerkinvite.APIError{
			// Not every transport reports its connections: without a report, assume that it sent.
			NotSent: !x.started || x.wanted.Load() && !x.connected.Load(),
		}
	}
	switch {
	case ended(ctx) != nil:
		failed.Err = ended(ctx)
	case ended(timed) != nil:
		failed.Err = &transportError{text: fmt.Sprintf("no complete response within %s, the limit set by %s", limit.d, limit.option), timeout: true}
	default:
		failed.Err = newTransportError(err)
	}
	return failed
}

// RoundTrip implements http.RoundTripper.
func (x *exchange) RoundTrip(in *http.Request) (*http.Response, error) {
	x.started = true
	req := in.Clone(in.Context())
	if in.Body != nil {
		body, err := io.ReadAll(in.Body)
		_ = in.Body.Close()
		if err != nil {
			return nil, err
		}
		// Without GetBody net/http cannot send a POST again. HTTP/2 would, even after
		// resets of streams that the peer may have processed. A known length avoids chunked encoding.
		req.Body, req.ContentLength, req.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	}
	resp, err := x.send(req)
	if err != nil || resp == nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()

	x.response = newAPIError(resp.StatusCode, resp.Header)
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
		x.failed, x.response.Err = true, unreadable(fmt.Errorf("larger than %d bytes", limit))
	} else if resp.StatusCode/100 != 2 {
		x.failed = true
		readErrorBody(x.response, resp.Header, body)
	}
	if x.failed {
		return nil, x.response // the SDK sees a broken connection, and so follows no redirect
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

// ended returns an error with ctx.Err and its cause, or nil if ctx has not ended.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if deadline, ok := ctx.Deadline(); err == nil && ok && !time.Now().Before(deadline) {
		err = context.DeadlineExceeded // a dialer checks the deadline itself and can fail before ctx ends
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("the caller's context ended: %w: %w", err, cause)
	}
	return fmt.Errorf("the caller's context ended: %w", err)
}

// maxTries is how often a look-up is sent.
const maxTries = 3

// lookUp calls once until it succeeds, at most three times. It returns the last error
// without another try if a retry is unlikely to help or the caller's deadline is too near.
func (c *Client) lookUp(ctx context.Context, once func() error) error {
	pause := c.pause
	for try := 1; ; try++ {
		err := once()
		var api *clerkinvite.APIError
		if err == nil || try == maxTries || !mayPass(err) || !errors.As(err, &api) {
			return err
		}
		wait := time.Duration(float64(pause) * (0.5 + rand.Float64())) //nolint:gosec // jitter
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			api.Err = ended(ctx)
			return err
		}
		pause *= 3
	}
}

// mayPass reports whether an immediate retry of a look-up may succeed. Rate limits are
// left to the service, which shares them between processes.
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
