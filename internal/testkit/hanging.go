package testkit

import (
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// hanging is both ends of a connection to the fake. When the fake does not respond, the client's time limit passes
// immediately: no test depends on a limit that is long enough for a busy machine and short enough to wait for.
type hanging struct {
	fake      http.Handler
	transport *http.Transport
	requests  atomic.Int64
	cancels   sync.Map // by the number of the request
}

const numberHeader = "Test-Request-Number"

// RoundTrip implements http.RoundTripper.
func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	number := strconv.FormatInt(h.requests.Add(1), 10)
	ctx, cancel := context.WithCancelCause(r.Context())
	h.cancels.Store(number, cancel)
	r = r.Clone(ctx)
	r.Header.Set(numberHeader, number)
	resp, err := h.transport.RoundTrip(r)
	if err != nil && context.Cause(ctx) == os.ErrDeadlineExceeded { //nolint:errorlint // this very value
		err = &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return resp, err
}

// ServeHTTP implements http.Handler.
func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := silence{r.Context(), func() {
		if cancel, ok := h.cancels.Load(r.Header.Get(numberHeader)); ok {
			cancel.(context.CancelCauseFunc)(os.ErrDeadlineExceeded) //nolint:forcetypeassert // see RoundTrip
		}
	}}
	h.fake.ServeHTTP(w, r.WithContext(ctx))
}

// silence is the context of a request. The fake waits for its end only if it does not respond.
type silence struct {
	context.Context //nolint:containedctx // it is one

	begins func()
}

// Done implements context.Context.
func (s silence) Done() <-chan struct{} {
	s.begins()
	return s.Context.Done()
}
