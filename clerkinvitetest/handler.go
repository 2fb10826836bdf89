package clerkinvitetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

const (
	maxBody         = 1 << 20
	maxPage         = 500
	defaultPage     = 10
	maxFilter       = 100
	defaultTemplate = "invitation"
)

// Handler returns a handler that serves c as Clerk's API under /v1: GET and POST
// /invitations, POST /invitations/bulk, POST /invitations/{id}/revoke, the same under
// /organizations/{id}, GET /organization_invitations, GET /organization_roles, GET and POST
// /organizations/{id}/memberships, DELETE /organizations/{id}/memberships/{user_id}, GET /users,
// GET /users/count and GET /users/{id}. It rejects parameters that it does not support.
//
// A request with the fault [Timeout] ends when its client disconnects or its server is
// closed with [http.Server.Close]. Until then httptest.Server.Close waits for it.
func (c *Clerk) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, of := range []string{"/v1", "/v1/organizations/{organization}"} {
		mux.HandleFunc("POST "+of+"/invitations", c.postInvitation)
		mux.HandleFunc("POST "+of+"/invitations/bulk", c.postInvitations)
	}
	mux.HandleFunc("GET /v1/invitations", c.getInvitations)
	mux.HandleFunc("POST /v1/invitations/{id}/revoke", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, c.revokeRequest(r.PathValue("id")))
	})
	mux.HandleFunc("GET /v1/users", c.getUsers)
	mux.HandleFunc("GET /v1/users/count", c.countUsers)
	mux.HandleFunc("GET /v1/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, c.getUserRequest(r.PathValue("id")))
	})
	mux.HandleFunc("GET /v1/organization_invitations", c.getOrganizationInvitations)
	mux.HandleFunc("GET /v1/organizations/{organization}/invitations", c.getOrganizationInvitations)
	mux.HandleFunc("POST /v1/organizations/{organization}/invitations/{id}/revoke", c.postOrganizationRevoke)
	mux.HandleFunc("GET /v1/organization_roles", c.getOrganizationRoles)
	mux.HandleFunc("GET /v1/organizations/{organization}/memberships", c.getMemberships)
	mux.HandleFunc("POST /v1/organizations/{organization}/memberships", c.postMembership)
	mux.HandleFunc("DELETE /v1/organizations/{organization}/memberships/{user}", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, c.removeMemberRequest(r.PathValue("organization"), r.PathValue("user")))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.serve(w, r, refusal(Call(r.Method+" (unknown)"), &response{status: http.StatusNotFound,
			err: &wireError{Code: "resource_not_found", Message: "not found", LongMessage: "The fake Clerk does not have this endpoint."}}))
	})
	return mux
}

// refusal returns a request that is rejected. It counts like any other.
func refusal(call Call, a *response) request {
	return request{call: call, run: func(time.Time) response { return *a }}
}

func (c *Clerk) postInvitation(w http.ResponseWriter, r *http.Request) {
	organization := r.PathValue("organization")
	body, bad := readBody(w, r)
	var p createParams
	if bad == nil {
		p, bad = parseCreate(body, false, organization)
	}
	if bad != nil {
		c.serve(w, r, refusal(createCall(organization, false), bad))
		return
	}
	c.serve(w, r, c.createRequest([]createParams{p}, false))
}

func (c *Clerk) postInvitations(w http.ResponseWriter, r *http.Request) {
	organization := r.PathValue("organization")
	body, bad := readBody(w, r)
	var items []json.RawMessage
	if bad == nil && (json.Unmarshal(body, &items) != nil || len(items) == 0) {
		bad = badBody("The request body must be an array of 1 to 10 invitations.")
	}
	ps := make([]createParams, len(items))
	for i, item := range items {
		if bad == nil {
			ps[i], bad = parseCreate(item, true, organization)
		}
	}
	if bad != nil {
		c.serve(w, r, refusal(createCall(organization, true), bad))
		return
	}
	c.serve(w, r, c.createRequest(ps, true))
}

func (c *Clerk) getInvitations(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	p := listParams{
		query: q.one("query"), status: clerkinvite.InvitationStatus(q.one("status", "pending", "accepted", "revoked", "expired")),
		orderBy: q.orderBy("created_at", "email_address", "expires_at"), limit: q.limit(), offset: q.offset(),
	}
	paginated := q.one("paginated", "true", "false") == "true"
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(CallList, bad))
		return
	}
	c.serve(w, r, c.listRequest(p, func(page []wireInvitation, total int) any {
		if !paginated {
			return page
		}
		return map[string]any{"data": page, "total_count": total}
	}))
}

// getOrganizationInvitations serves the lists of invitations into one organization and into all.
func (c *Clerk) getOrganizationInvitations(w http.ResponseWriter, r *http.Request) {
	p := listParams{organization: r.PathValue("organization")}
	call, filter := CallOrganizationList, "email_address"
	if p.organization == "" {
		p.allOrganizations = true
		call, filter = CallOrganizationListAll, "query"
	}
	q := newQuery(r)
	p.query, p.status = q.one(filter), clerkinvite.InvitationStatus(q.one("status", "pending", "accepted", "revoked", "expired"))
	p.orderBy, p.limit, p.offset = q.orderBy("created_at", "email_address"), q.limit(), q.offset()
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(call, bad))
		return
	}
	c.serve(w, r, c.listRequest(p, nil))
}

func (c *Clerk) postOrganizationRevoke(w http.ResponseWriter, r *http.Request) {
	var requester string
	if r.ContentLength != 0 { // the body is optional
		body, bad := readBody(w, r)
		if bad == nil && !bytes.Equal(body, []byte("null")) {
			bad = parseFields(body, []field{{"requesting_user_id", &requester, nullable}})
		}
		if bad != nil {
			c.serve(w, r, refusal(CallOrganizationRevoke, bad))
			return
		}
	}
	c.serve(w, r, c.organizationRevokeRequest(r.PathValue("organization"), r.PathValue("id"), requester))
}

func (c *Clerk) getOrganizationRoles(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	limit, offset := q.limit(), q.offset()
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(CallOrganizationRoles, bad))
		return
	}
	c.serve(w, r, request{call: CallOrganizationRoles, run: func(time.Time) response {
		if c.noOrganizations {
			return notEnabled()
		}
		return success(wireRoles(c.roles(), limit, offset))
	}})
}

func (c *Clerk) getMemberships(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	p := memberListParams{userIDs: q.many("user_id"), roles: q.many("role"), orderBy: q.orderBy("created_at"), limit: q.limit(), offset: q.offset()}
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(CallMemberships, bad))
		return
	}
	c.serve(w, r, c.membershipsRequest(r.PathValue("organization"), p))
}

func (c *Clerk) postMembership(w http.ResponseWriter, r *http.Request) {
	p := memberParams{metadata: json.RawMessage("{}"), privateMetadata: json.RawMessage("{}")}
	body, bad := readBody(w, r)
	if bad == nil {
		bad = parseFields(body, []field{
			{"user_id", &p.userID, required}, {"role", &p.role, required},
			{"public_metadata", &p.metadata, nullable}, {"private_metadata", &p.privateMetadata, nullable},
		})
	}
	if bad != nil {
		c.serve(w, r, refusal(CallAddMember, bad))
		return
	}
	c.serve(w, r, c.addMemberRequest(r.PathValue("organization"), p))
}

func (c *Clerk) getUsers(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	p := q.userFilter()
	p.orderBy, p.limit, p.offset = q.orderBy("created_at"), q.limit(), q.offset()
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(CallFindUsers, bad))
		return
	}
	c.serve(w, r, c.findUsersRequest(p))
}

func (c *Clerk) countUsers(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	p := q.userFilter()
	if bad := q.fault(); bad != nil {
		c.serve(w, r, refusal(CallCountUsers, bad))
		return
	}
	c.serve(w, r, request{call: CallCountUsers, emails: p.emails, run: func(time.Time) response {
		_, total := c.findUsers(p)
		return success(map[string]any{"object": "total_count", "total_count": total})
	}})
}

// serve performs the request and writes the response.
func (c *Clerk) serve(w http.ResponseWriter, r *http.Request, req request) {
	// net/http notices a disconnect only when the body has been read.
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	req.denied = c.authorize(r)
	a := c.exchange(r.Context(), req)

	h := w.Header()
	h.Set("Clerk-Trace-Id", a.trace)
	if a.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(a.retryAfter/time.Second)))
	}
	if a.status/100 == 3 {
		// A client that follows it sends the request here again (307), or a GET (301).
		h.Set("Location", r.URL.RequestURI())
	}
	var body []byte
	switch a.form {
	case asSilence:
		_, _ = io.Copy(io.Discard, r.Body) // a body beyond maxBody, too
		<-r.Context().Done()
		cutConnection(w)
		return
	case asReset, asNotSent:
		cutConnection(w)
		return
	case asHTML:
		h.Set("Content-Type", "text/html; charset=UTF-8")
		body = []byte("<html>\n<head><title>" + strconv.Itoa(a.status) + " " + http.StatusText(a.status) + "</title></head>\n<body>cloudflare</body>\n</html>\n")
	case asNothing:
	case asNull:
		body = []byte("null")
	case asEmptyObject:
		body = []byte("{}")
	case asHalf:
		body = []byte(`{"object":"invitation","id":"inv_0`)
		if a.value != nil {
			body = encode(a.value)
		}
	case asJSON:
		body = encode(a.body())
	}
	if len(body) > 0 && h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if a.form == asHalf {
		body = body[:len(body)/2]
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
	if a.form == asHalf {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// body returns the value of a JSON body.
func (a response) body() any {
	if a.err == nil {
		return a.value
	}
	return struct {
		Errors  []*wireError `json:"errors"`
		TraceID string       `json:"clerk_trace_id"`
	}{[]*wireError{a.err}, a.trace}
}

// cutConnection closes the connection in the middle of the response's header. If it closed
// it before the first byte, net/http's client would repeat a GET.
func cutConnection(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // HTTP/2, or no connection
		panic(http.ErrAbortHandler)
	}
	_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\n"))
	_ = conn.Close()
}

// authorize returns the rejection of a request without the secret key, if one is set.
func (c *Clerk) authorize(r *http.Request) *response {
	c.mu.Lock()
	want := c.secretKey
	c.mu.Unlock()
	if want == "" {
		return nil
	}
	key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	var a response
	switch {
	case !ok:
		a = refuse(http.StatusUnauthorized, "authorization_header_format_invalid", "Invalid Authorization header format",
			`Invalid Authorization header format. Must be "Bearer <YOUR_API_KEY>"`, nil)
	case key != want:
		a = refuse(http.StatusUnauthorized, "clerk_key_invalid", "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.",
			"The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.", nil)
	default:
		return nil
	}
	return &a
}

func badBody(long string) *response {
	a := refuse(http.StatusBadRequest, "request_body_invalid", "Request body invalid", long, nil)
	return &a
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *response) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		a := refuse(http.StatusRequestEntityTooLarge, "request_body_too_large", "Request body too large", "The request body is too large.", nil)
		return nil, &a
	case err != nil || !json.Valid(body):
		return nil, badBody("The request body is invalid. Please consult the API documentation for more information.")
	}
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
		a := refuse(http.StatusUnsupportedMediaType, "unsupported_content_type", "Unsupported content type", "Content-Type must be application/json.", nil)
		return nil, &a
	}
	return body, nil
}

// parseCreate reads an invitation into the organization, or into the application, from a request body.
func parseCreate(raw json.RawMessage, bulk bool, organization string) (createParams, *response) {
	p := createParams{
		template: defaultTemplate, days: defaultDays, notify: true, metadata: json.RawMessage("{}"),
		organization: organization, privateMetadata: json.RawMessage("{}"),
	}
	fields := []field{
		{"email_address", &p.email, required},
		{"public_metadata", &p.metadata, optional},
		{"redirect_url", &p.redirectURL, optional},
		{"notify", &p.notify, nullable},
		{"expires_in_days", &p.days, nullable},
	}
	if bulk || organization != "" { // the specifications of these requests allow more nulls
		fields[1].kind, fields[2].kind = nullable, nullable
	}
	if organization == "" {
		fields = append(fields, field{"ignore_existing", &p.ignoreExisting, nullable}, field{"template_slug", &p.template, optional})
	} else {
		fields = append(fields, field{"role", &p.role, required}, field{"inviter_user_id", &p.inviter, nullable},
			field{"private_metadata", &p.privateMetadata, nullable})
	}
	return p, parseFields(raw, fields)
}

// field is a field of a request body.
type field struct {
	name   string
	target any // a *json.RawMessage is for a JSON object
	kind   fieldKind
}

// fieldKind says whether a field may be missing or null.
type fieldKind int

const (
	required fieldKind = iota
	optional           // may be missing, but not null
	nullable           // null means missing
)

// parseFields reads a request body. It rejects every other field.
func parseFields(raw json.RawMessage, fields []field) *response {
	var values map[string]json.RawMessage
	if json.Unmarshal(raw, &values) != nil || values == nil {
		return badBody("The request body must be an object.")
	}
	for _, f := range fields {
		if _, ok := values[f.name]; !ok && f.kind == required {
			a := refuseParam(f.name, "form_param_missing", "is missing", f.name+" must be included.")
			return &a
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			a := refuseParam(name, "form_param_unknown", "is unknown", name+" is not a valid parameter for this request.")
			return &a
		}
		if bytes.Equal(value, []byte("null")) {
			if fields[i].kind == nullable {
				continue
			}
			a := refuseParam(name, "form_param_nil", "is nil", name+" cannot be nil.")
			return &a
		}
		var ok bool
		if target, isObject := fields[i].target.(*json.RawMessage); isObject {
			*target, ok = object(value)
		} else {
			ok = json.Unmarshal(value, fields[i].target) == nil
		}
		if !ok {
			a := refuseParam(name, "form_param_format_invalid", "is invalid", name+" is of the wrong type.")
			return &a
		}
	}
	return nil
}

// query reads the parameters of a GET request. bad is the rejection of the first faulty one.
type query struct {
	values url.Values
	bad    *response
}

func newQuery(r *http.Request) *query {
	q := &query{values: r.URL.Query()}
	delete(q.values, "__clerk_api_version") // allowed in every request
	return q
}

func (q *query) refuse(name, code string) {
	if q.bad == nil {
		a := refuseParam(name, code, "is invalid", name+" is invalid.")
		q.bad = &a
	}
}

// many removes and returns a parameter that may be repeated.
func (q *query) many(name string) []string {
	vs := q.values[name]
	delete(q.values, name)
	if len(vs) > maxFilter {
		q.refuse(name, "form_param_array_size_exceeded")
	}
	return vs
}

// one removes and returns a parameter that may occur once, with one of the allowed values if any are given.
func (q *query) one(name string, allowed ...string) string {
	vs := q.many(name)
	if len(vs) == 0 {
		return ""
	}
	if len(vs) > 1 || len(allowed) > 0 && !slices.Contains(allowed, vs[0]) {
		q.refuse(name, "form_param_value_invalid")
	}
	return vs[0]
}

func (q *query) number(name string, lowest, highest, otherwise int) int {
	if len(q.values[name]) == 0 {
		return otherwise
	}
	s := q.one(name)
	n, err := strconv.Atoi(s)
	if err != nil || n < lowest || n > highest {
		q.refuse(name, "form_param_value_invalid")
	}
	return n
}

func (q *query) limit() int  { return q.number("limit", 1, maxPage, defaultPage) }
func (q *query) offset() int { return q.number("offset", 0, 1<<31-1, 0) }

func (q *query) orderBy(fields ...string) string {
	s := q.one("order_by")
	if s == "" {
		return "-created_at"
	}
	s = strings.Replace(s, " ", "+", 1) // an unescaped +
	if !slices.Contains(fields, strings.TrimLeft(s, "+-")) {
		q.refuse("order_by", "form_param_value_invalid")
	}
	return s
}

func (q *query) userFilter() userParams {
	return userParams{emails: q.many("email_address"), ids: q.many("user_id")}
}

// fault returns the first rejection. Parameters that were not removed are rejected, too.
func (q *query) fault() *response {
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		q.refuse(name, "form_param_unknown")
	}
	return q.bad
}
