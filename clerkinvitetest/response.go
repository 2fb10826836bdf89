package clerkinvitetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// response is the result of a request, for a direct call and for HTTP.
type response struct {
	status     int
	form       form
	value      any        // of a success
	err        *wireError // of a rejection
	trace      string
	retryAfter time.Duration
}

// form is the form of a response on the wire.
type form int

const (
	asJSON form = iota
	asHTML
	asNothing     // an empty body
	asNull        // the body null
	asEmptyObject // the body {}
	asHalf        // cut off in the middle of the body
	asReset       // the connection is cut instead
	asSilence     // no response, and the connection stays open
	asNotSent     // the request was not sent
)

// wireError is an error in the body of a response.
type wireError struct {
	Message     string         `json:"message"`
	LongMessage string         `json:"long_message"`
	Code        string         `json:"code"`
	Meta        map[string]any `json:"meta,omitempty"`
}

func success(value any) response { return response{status: http.StatusOK, value: value} }

func refuse(status int, code, message, long string, meta map[string]any) response {
	return response{status: status, err: &wireError{Code: code, Message: message, LongMessage: long, Meta: meta}}
}

// refuseParam rejects a parameter with 422, as Clerk's validation does.
func refuseParam(param, code, message, long string) response {
	return refuse(http.StatusUnprocessableEntity, code, message, long, map[string]any{"param_name": param})
}

func notFound(what, id string) response {
	return refuse(http.StatusNotFound, "resource_not_found", "not found", "No "+what+" was found with id "+id, nil)
}

// apiError returns the error that the real adapter returns for the response, or nil for a
// success.
func (a response) apiError() error {
	e := &clerkinvite.APIError{StatusCode: a.status, TraceID: a.trace, RetryAfter: a.retryAfter}
	ok := a.status/100 == 2
	switch {
	case a.form == asReset:
		return &clerkinvite.APIError{Err: io.ErrUnexpectedEOF}
	case a.form == asNotSent:
		return &clerkinvite.APIError{NotSent: true, Err: errors.New("clerkinvitetest: no connection")}
	case a.form == asJSON && ok && a.value != nil:
		return nil
	case a.form == asHalf:
		e.Err = io.ErrUnexpectedEOF
	case ok:
		e.Err = errors.New("the response cannot be read")
	case a.form == asJSON && a.err != nil:
		e.Code, e.Message, e.LongMessage, e.Meta = a.err.Code, a.err.Message, a.err.LongMessage, decoded(a.err.Meta)
	default:
		e.Err = errors.New("the body is not a Clerk error")
	}
	return e
}

// decoded returns meta encoded and decoded as JSON, which makes a []string a []any.
func decoded(meta map[string]any) map[string]any {
	if len(meta) == 0 {
		return nil
	}
	b, err := json.Marshal(meta)
	if err == nil {
		meta = nil
		err = json.Unmarshal(b, &meta)
	}
	if err != nil {
		panic(fmt.Sprintf("clerkinvitetest: meta must be JSON: %v", err))
	}
	return meta
}
