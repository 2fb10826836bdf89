package contract_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
)

// exchange is a request and its response. Without a response the status is 0.
type exchange struct {
	request *http.Request
	sent    []byte
	status  int
	header  http.Header
	body    []byte
	staged  bool // wrong on purpose, so it does not count as a use of an exception
}

// observe sends a request and records both sides. The response can still be read.
func observe(next http.RoundTripper, in *http.Request) (*exchange, *http.Response, error) {
	x := &exchange{request: in.Clone(context.Background())}
	out := in.Clone(in.Context())
	if in.Body != nil {
		var err error
		x.sent, err = io.ReadAll(in.Body)
		_ = in.Body.Close()
		if err != nil {
			return x, nil, err
		}
		out.Body = io.NopCloser(bytes.NewReader(x.sent))
	}
	resp, err := next.RoundTrip(out)
	if err != nil {
		return x, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return x, nil, err
	}
	x.status, x.header, x.body = resp.StatusCode, resp.Header, body
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return x, resp, nil
}

// subject is the part of an exchange that a complaint is about.
type subject string

const (
	inRequest subject = "request" // the description does not allow it
	inVerdict subject = "verdict" // the description and the fake disagree on whether the request is valid
	inStatus  subject = "status"  // the description does not list it
	inBody    subject = "body"    // of the response: the description does not allow it
)

// complaint is one violation of a description.
type complaint struct {
	version   string
	operation string // "POST /invitations/{invitation_id}/revoke"
	status    int
	about     subject
	text      string
}

func (c complaint) String() string {
	return fmt.Sprintf("%s: %s, %d: %s: %s", c.version, c.operation, c.status, c.about, c.text)
}

// check returns the violations that no exception excuses.
func (x *exchange) check(all []*description) []complaint {
	exchanges.Add(1)
	var left []complaint
	for _, d := range all {
		left = append(left, d.check(x)...)
	}
	return left
}

func (d *description) check(x *exchange) (left []complaint) {
	operation := x.request.Method + " " + x.request.URL.Path
	complain := func(about subject, text string) {
		c := complaint{d.version, operation, x.status, about, text}
		e := excuse(c, x)
		if e == nil {
			left = append(left, c)
			return
		}
		if e.instead != nil {
			for _, text := range e.instead(d, x) {
				left = append(left, complaint{d.version, operation, x.status, inBody, text})
			}
		}
	}

	route, params, err := d.router.FindRoute(x.request)
	if err != nil {
		complain(inRequest, "there is no such operation")
		return left
	}
	operation = x.request.Method + " " + route.Path
	for _, text := range requestFaults(x, route, params) {
		complain(inRequest, text)
	}
	if x.status == 0 {
		return left
	}

	code, param := x.errorCode()
	switch refused, wrong := validation.MatchString(code), len(left) > 0; {
	case wrong && x.status/100 == 2:
		complain(inVerdict, "a wrong request is accepted")
	case !wrong && refused:
		complain(inVerdict, strings.TrimSpace("a valid request is refused: "+code+" "+param))
	}

	listed := route.Operation.Responses.Status(x.status)
	if listed == nil {
		complain(inStatus, "it is not listed")
		return left
	}
	for _, text := range bodyFaults(listed.Value, x) {
		complain(inBody, text)
	}
	return left
}

// validation matches the codes with which Clerk refuses a malformed request.
var validation = regexp.MustCompile(`^(form_param_|request_body_|malformed_|unsupported_content_type$|bulk_size_exceeded$)`)

// errorCode returns the code of an error response and the parameter it is about.
func (x *exchange) errorCode() (code, param string) {
	var body struct {
		Errors []struct {
			Code string `json:"code"`
			Meta struct {
				ParamName string `json:"param_name"`
			} `json:"meta"`
		} `json:"errors"`
	}
	if x.status < 400 || json.Unmarshal(x.body, &body) != nil || len(body.Errors) == 0 {
		return "", ""
	}
	return body.Errors[0].Code, body.Errors[0].Meta.ParamName
}

func requestFaults(x *exchange, route *routers.Route, params map[string]string) []string {
	r := x.request.Clone(context.Background())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(x.sent)), int64(len(x.sent))
	faults := reasons(openapi3filter.ValidateRequest(context.Background(), &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			MultiError: true, SkipSettingDefaults: true, RejectWhenRequestBodyNotSpecified: true,
			AuthenticationFunc:      bearer,
			SchemaValidationOptions: schemaOptions(),
		},
	}))
	// OpenAPI allows any other parameter in a query. How Clerk treats undescribed and repeated
	// parameters is unknown.
	for name, values := range r.URL.Query() {
		p := route.Operation.Parameters.GetByInAndName(openapi3.ParameterInQuery, name)
		switch {
		case p == nil:
			faults = append(faults, "query "+name+": not described")
		case len(values) > 1 && !p.Schema.Value.Type.Is(openapi3.TypeArray):
			faults = append(faults, "query "+name+": more than one value")
		}
	}
	return faults
}

var bearerKey = regexp.MustCompile(`^Bearer sk_[a-z]+_\S+$`)

// bearer is the only security scheme of the descriptions, with its bearerFormat.
func bearer(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	if in.SecurityScheme.Scheme != "bearer" || !bearerKey.MatchString(in.RequestValidationInput.Request.Header.Get("Authorization")) {
		return errors.New("no secret key")
	}
	return nil
}

// bodyFaults returns the violations in a response, for one described variant.
func bodyFaults(described *openapi3.Response, x *exchange) []string {
	kind := x.header.Get("Content-Type")
	content := described.Content.Get(kind)
	if content == nil {
		return []string{fmt.Sprintf("the content type is %q", kind)}
	}
	return schemaFaults(content.Schema.Value, x.body, openapi3.VisitAsResponse())
}

// reasons splits the validator's error into short lines, each with the location.
func reasons(err error) []string {
	within := func(place string, texts []string) []string {
		for i := range texts {
			texts[i] = place + texts[i]
		}
		return texts
	}
	switch e := err.(type) { //nolint:errorlint // a tree, taken apart level by level
	case nil:
		return nil
	case openapi3.MultiError:
		var all []string
		for _, one := range e {
			all = append(all, reasons(one)...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	case *openapi3filter.SecurityRequirementsError:
		return within("security: ", reasons(openapi3.MultiError(e.Errors)))
	case *openapi3filter.RequestError:
		place := "body: "
		if e.Parameter != nil {
			place = e.Parameter.In + " " + e.Parameter.Name + ": "
		}
		if e.Err == nil {
			return []string{place + e.Reason}
		}
		return within(place, reasons(e.Err))
	case *openapi3.SchemaError:
		var parts openapi3.MultiError // of an allOf or oneOf, whose own text says nothing
		if errors.As(e.Origin, &parts) {
			return reasons(parts)
		}
		return []string{"/" + strings.Join(e.JSONPointer(), "/") + ": " + e.Reason}
	default:
		return []string{err.Error()}
	}
}
