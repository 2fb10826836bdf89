package main

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// maxBody limits request bodies, in bytes.
const maxBody = 64 << 10

// routeAPI adds the JSON API. Errors are problem documents (RFC 9457).
func (p *program) routeAPI(mux *http.ServeMux) {
	const list = "/api/tenants/{tenant}/invitations"
	for path, methods := range map[string]map[string]endpoint{
		list:                   {"GET": p.apiList, "POST": p.apiInvite},
		list + "/{who}":        {"GET": p.apiOne(p.invites.Get), "DELETE": p.apiOne(p.invites.Remove)},
		list + "/{who}/resend": {"POST": p.apiOne(p.invites.Resend)},
		list + "/{who}/revoke": {"POST": p.apiOne(p.invites.Revoke)},
		"/api/{everything...}": {},
	} {
		var allowed []string
		for method, f := range methods {
			allowed = append(allowed, method)
			mux.Handle(method+" "+path, p.api(f))
		}
		slices.Sort(allowed)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if len(allowed) == 0 {
				p.problem(w, r, refusal{http.StatusNotFound, "this endpoint does not exist"})
				return
			}
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			p.problem(w, r, refusal{http.StatusMethodNotAllowed, "use " + strings.Join(allowed, " or ")})
		})
	}
}

// endpoint handles an admin's request, and returns the status and the JSON body.
type endpoint func(w http.ResponseWriter, r *http.Request, admin string) (status int, body any, err error)

// api calls the guard before the endpoint.
func (p *program) api(f endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		admin, err := p.guard(r, r.PathValue("tenant"))
		if err != nil {
			p.problem(w, r, err)
			return
		}
		status, body, err := f(w, r.WithContext(clerkinvite.WithActor(r.Context(), admin)), admin)
		if err != nil {
			p.problem(w, r, err)
			return
		}
		writeJSON(w, "application/json", status, body)
	})
}

func (p *program) apiInvite(w http.ResponseWriter, r *http.Request, admin string) (int, any, error) {
	var body struct {
		Email string `json:"email"`
		Role  string `json:"role"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return 0, nil, err
	}
	m, err := p.invites.Invite(r.Context(), clerkinvite.InviteParams{
		TenantID: r.PathValue("tenant"), Email: body.Email, Role: body.Role, InvitedBy: admin,
	})
	if err != nil {
		return 0, nil, err
	}
	w.Header().Set("Location", "/api/tenants/"+url.PathEscape(m.TenantID)+"/invitations/"+m.ID)
	return http.StatusCreated, m, nil
}

func (p *program) apiList(_ http.ResponseWriter, r *http.Request, _ string) (int, any, error) {
	q := r.URL.Query()
	params := clerkinvite.ListParams{
		TenantID: r.PathValue("tenant"), EmailPrefix: q.Get("email_prefix"), InvitedBy: q.Get("invited_by"), Cursor: q.Get("cursor"),
	}
	for _, status := range q["status"] {
		params.Statuses = append(params.Statuses, clerkinvite.Status(status))
	}
	if q.Has("limit") {
		limit, err := strconv.Atoi(q.Get("limit"))
		if err != nil {
			return 0, nil, &clerkinvite.InvalidParamsError{Field: "Limit", Reason: "must be a number"}
		}
		params.Limit = limit
	}
	page, err := p.invites.List(r.Context(), params)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, page, nil
}

// apiOne returns the endpoint of a verb for one member.
func (p *program) apiOne(verb verb) endpoint {
	return func(_ http.ResponseWriter, r *http.Request, _ string) (int, any, error) {
		m, err := verb(r.Context(), who(r))
		return http.StatusOK, m, err
	}
}

// who returns the member in a path, by address or by ID.
func who(r *http.Request) clerkinvite.Ref {
	tenant, who := r.PathValue("tenant"), r.PathValue("who")
	if strings.Contains(who, "@") {
		return clerkinvite.Ref{TenantID: tenant, Email: who}
	}
	return clerkinvite.Ref{TenantID: tenant, ID: who}
}

// readJSON reads a JSON object with known fields.
func readJSON(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return refusal{http.StatusUnsupportedMediaType, "send application/json"}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			err = errors.Join(errors.New("more data follows the object"), more)
		}
	}
	if errors.As(err, new(*http.MaxBytesError)) {
		return refusal{http.StatusRequestEntityTooLarge, "the body is longer than 64 KiB"}
	}
	if name, unknown := strings.CutPrefix(errorText(err), "json: unknown field "); unknown {
		return refusal{http.StatusBadRequest, "unknown field " + name}
	}
	if err != nil {
		return refusal{http.StatusBadRequest, "the body must be the JSON object that this endpoint expects"}
	}
	return nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refusal is an error before the library is called.
type refusal struct {
	status int
	text   string
}

func (e refusal) Error() string { return e.text }

// HTTPStatus returns the status, for clerkinvite.HTTPError.
func (e refusal) HTTPStatus() int { return e.status }

// problem writes err as a problem document (RFC 9457).
func (p *program) problem(w http.ResponseWriter, r *http.Request, err error) {
	status, detail := p.explain(w, r, err)
	writeJSON(w, "application/problem+json", status, struct {
		Type       string `json:"type"`
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Detail     string `json:"detail"`
		RetryAfter int    `json:"retry_after,omitempty"` // in seconds, like the header
	}{"about:blank", http.StatusText(status), status, detail, int(retryAfter(err))})
}

// seconds is the unit of Retry-After.
type seconds int

func (s seconds) String() string { return strconv.Itoa(int(s)) }

// retryAfter returns how long to wait before the next try, rounded up, or 0 if that is unknown.
func retryAfter(err error) seconds {
	wait, ok := clerkinvite.RetryAfter(err)
	if !ok {
		return 0
	}
	return max(seconds((wait+time.Second-1)/time.Second), 1)
}

func writeJSON(w http.ResponseWriter, kind string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal server error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
