package contract_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

// exception excuses one complaint, because the description is wrong or silent. Every version must
// need it, or the tests fail.
type exception struct {
	operation string // "" matches any
	about     subject
	status    int                    // 0 matches any
	text      string                 // of the complaint, or its beginning
	when      func(x *exchange) bool // nil matches always

	why    string
	source string

	// instead checks the response by the rule that applies instead of the description. nil checks
	// nothing.
	instead func(d *description, x *exchange) []string
}

// Sources: docs = clerk/clerk-docs, catalogue = data/api_errors.json there,
// SDK = clerk/clerk-sdk-go v2.7.0, JS = clerk/javascript.
var exceptions = []*exception{
	// Statuses. Each is listed for other operations, or in the catalogue, with the same body.
	{
		about: inStatus, status: 401,
		why:     "every request needs the secret key, but only some operations list what comes without",
		source:  "GET /users/{user_id} lists it; catalogue: clerk_key_invalid, authorization_header_format_invalid",
		instead: like("AuthenticationInvalid"),
	},
	{
		about: inStatus, status: 429,
		why:     "rate limits hold for all operations, and few others list them",
		source:  "docs: system limits; the response TooManyRequests",
		instead: like("TooManyRequests"),
	},
	{
		about: inStatus, status: 500,
		why:     "Clerk's own failure can meet any request; many other operations list it",
		source:  "catalogue: internal_clerk_error; GET /organization_invitations lists it",
		instead: like("ClerkErrors"),
	},
	{
		about: inStatus, status: 413,
		why:     "the size of the body is checked before the operation",
		source:  "catalogue: request_body_too_large; PUT /organizations/{organization_id}/logo lists it",
		instead: like("ClerkErrors"),
	},
	{
		about: inStatus, status: 415,
		why:     "the content type is checked before the operation",
		source:  "catalogue: unsupported_content_type",
		instead: like("ClerkErrors"),
	},
	{
		operation: "GET /invitations", about: inStatus, status: 422,
		why:     "it takes the same limit, offset and enumerations as GET /users, which lists it; it lists no refusal at all",
		source:  "GET /users lists it; catalogue: form_param_value_invalid",
		instead: like("UnprocessableEntity"),
	},

	// Forms.
	{
		operation: "GET /invitations", about: inBody, status: 200, text: "/: value must be an array",
		when:    paginated,
		why:     "with paginated=true both official SDKs read an object with data and total_count; the description knows the array only",
		source:  "SDK invitation/client.go and invitation.go; JS InvitationApi",
		instead: envelope,
	},
	{
		about: inRequest, text: "body: request body not allowed",
		when:   func(x *exchange) bool { return string(x.sent) == "null" },
		why:    "the official SDK sends null where there are no parameters; its own Revoke and Delete do",
		source: "SDK clerk.go, setRequestBody; invitation/client.go, Revoke; organizationmembership/client.go, Delete",
	},
	{
		operation: "GET /users", about: inRequest, text: "query __clerk_api_version: not described",
		why:    "the version may go in the query instead of the header, in every operation; neither is described",
		source: "docs: versioning",
	},

	// Requests that the fake refuses although the schema allows them, by rules that Clerk states
	// only in prose.
	refuses("POST /invitations", "form_param_format_invalid email_address", "the schema takes any string for an address, its answer only an email",
		"format: email of the schema Invitation; catalogue: form_param_format_invalid"),
	refuses("POST /invitations/bulk", "form_param_format_invalid email_address", "as above",
		"format: email of the schema Invitation; catalogue: form_param_format_invalid"),
	refuses("POST /invitations", "form_param_format_invalid redirect_url", "the schema takes any string, its text says URL",
		"text of redirect_url; catalogue: form_param_format_invalid"),
	refuses("POST /invitations", "form_param_exceeds_allowed_size public_metadata", "metadata are limited to 8 KB",
		"docs: metadata; catalogue: form_param_exceeds_allowed_size"),
	refuses("POST /invitations", "request_body_too_large", "schemas know no size of a body", "catalogue: request_body_too_large"),
	refuses("GET /invitations", "form_param_value_invalid order_by", "the schema takes any string, its text names the values", "text of order_by"),
	refuses("GET /users", "form_param_array_size_exceeded email_address", "the schema has no maxItems, its text says up to 100",
		"text of email_address; catalogue: form_param_array_size_exceeded"),
	refuses("GET /users", "form_param_unknown starting_after", "the fake refuses the filters that it does not implement instead of ignoring them",
		"documentation of Clerk.Handler"),
	{
		operation: "POST /invitations", about: inVerdict, text: refusedFor + "request_body_invalid",
		when:   func(x *exchange) bool { return len(x.sent) == 0 },
		why:    "the body is not marked as required, but its field email_address is",
		source: "required: email_address of the request's schema",
	},
}

const refusedFor = "a valid request is refused: "

func refuses(operation, refusal, why, source string) *exception {
	return &exception{operation: operation, about: inVerdict, text: refusedFor + refusal, why: why, source: source}
}

// like requires the response that other operations list.
func like(response string) func(d *description, x *exchange) []string {
	return func(d *description, x *exchange) []string {
		return bodyFaults(d.doc.Components.Responses[response].Value, x)
	}
}

func paginated(x *exchange) bool { return x.request.URL.Query().Get("paginated") == "true" }

// envelope requires an object with the described array as data, and the total count.
func envelope(d *description, x *exchange) []string {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(x.body, &fields); err != nil {
		return []string{"neither an array nor an object"}
	}
	var faults []string
	for name := range fields {
		if name != "data" && name != "total_count" {
			faults = append(faults, "/"+name+": unknown beside data and total_count")
		}
	}
	var total int
	if err := json.Unmarshal(fields["total_count"], &total); err != nil {
		faults = append(faults, "/total_count: no number")
	}
	items := d.doc.Components.Responses["Invitation.List"].Value.Content["application/json"].Schema.Value
	for _, fault := range schemaFaults(items, fields["data"], openapi3.VisitAsResponse()) {
		faults = append(faults, "/data"+fault)
	}
	var data []any
	_ = json.Unmarshal(fields["data"], &data) // its violations are reported above
	if size := len(data); size > total {
		faults = append(faults, fmt.Sprintf("/total_count: %d, for a page of %d", total, size))
	}
	return faults
}

// needed has the versions that needed an exception.
var needed = struct {
	sync.Mutex

	versions map[*exception]map[string]bool
}{versions: map[*exception]map[string]bool{}}

// excuses reports whether e is about the complaint.
func (e *exception) excuses(c complaint, x *exchange) bool {
	return e.about == c.about && (e.operation == "" || e.operation == c.operation) && (e.status == 0 || e.status == c.status) &&
		strings.HasPrefix(c.text, e.text) && (e.when == nil || e.when(x))
}

// excuse returns the exception for a complaint, or nil.
func excuse(c complaint, x *exchange) *exception {
	i := slices.IndexFunc(exceptions, func(e *exception) bool { return e.excuses(c, x) })
	if i < 0 {
		return nil
	}
	e := exceptions[i]
	if x.staged {
		return e
	}
	needed.Lock()
	defer needed.Unlock()
	if needed.versions[e] == nil {
		needed.versions[e] = map[string]bool{}
	}
	needed.versions[e][c.version] = true
	return e
}

func unusedExceptions() []string {
	needed.Lock()
	defer needed.Unlock()
	var unused []string
	for _, e := range exceptions {
		for _, version := range versions {
			if !needed.versions[e][version] {
				unused = append(unused, fmt.Sprintf("version %s: %q %s %d %q (%s)", version, e.operation, e.about, e.status, e.text, e.why))
			}
		}
	}
	return unused
}

func TestExceptionsHaveReasons(t *testing.T) {
	t.Parallel()
	for _, e := range exceptions {
		require.NotEmpty(t, e.why)
		require.NotEmpty(t, e.source)
		require.True(t, e.text != "" || e.status != 0, "it would excuse everything")
		if e.about == inStatus || e.about == inBody {
			require.NotNil(t, e.instead, "an answer has to follow some rule")
		}
	}
}
