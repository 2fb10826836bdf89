package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/clerkinvite/clerkinvite"
)

const (
	pageSize = 20
	maxMany  = 1000 // addresses per form
	maxLines = 5    // errors on the page; the others are only counted
)

// verb is a method for one member.
type verb func(context.Context, clerkinvite.Ref) (*clerkinvite.Member, error)

// routePages adds the pages. The response to a form is a redirect after success, and otherwise the page with the error, so that forms
// work without JavaScript. app.js sends the same forms and uses parts of the same pages.
func (p *program) routePages(mux *http.ServeMux) {
	mux.Handle("GET /{$}", http.RedirectHandler("/tenants/acme", http.StatusSeeOther)) // yours leads to the admin's tenant
	mux.Handle("GET /tenants/{tenant}", p.page(p.showMembers))
	mux.Handle("GET /tenants/{tenant}/live", p.page(p.showLive))
	mux.Handle("POST /tenants/{tenant}/invitations", p.page(p.postInvitations))
	mux.Handle("POST /tenants/{tenant}/members/{id}/{verb}", p.page(p.postVerb))
	if p.demo != nil {
		mux.Handle("POST /tenants/{tenant}/demo/{verb}", p.page(p.postDemo))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, refusal{http.StatusNotFound, "this page does not exist"})
	})
}

// page calls the guard, and reads the form.
func (p *program) page(f func(w http.ResponseWriter, r *http.Request, v *view)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		admin, err := p.guard(r, r.PathValue("tenant"))
		if err != nil {
			p.fail(w, r, err) // or redirect to your sign-in
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); errors.As(err, new(*http.MaxBytesError)) {
			p.fail(w, r, refusal{http.StatusRequestEntityTooLarge, "this form is longer than 64 KiB"})
			return
		} else if err != nil {
			p.fail(w, r, refusal{http.StatusBadRequest, "this form is not valid"})
			return
		}
		q := r.URL.Query()
		f(w, r.WithContext(clerkinvite.WithActor(r.Context(), admin)), &view{
			Tenant: r.PathValue("tenant"), Admin: admin, State: clerkinvite.Status(q.Get("state")), Search: q.Get("q"), Cursors: q["cursor"],
			Stub: p.stub, Now: time.Now(), Role: "member",
		})
	})
}

// view is the data of the page.
type view struct {
	Tenant, Admin string
	State         clerkinvite.Status // the filter; "" means all
	Search        string             // the beginning of an address; "" means all
	Cursors       []string           // of the pages up to this one; none on the first page
	Stub          bool
	Now           time.Time

	Outcome *outcome // of the last action, or nil
	Emails  string   // in the form
	Role    string

	Members []*clerkinvite.Member
	Next    string                     // cursor of the next page, or ""
	Counts  map[clerkinvite.Status]int // of the tenant's members
	Demo    *demoView                  // nil with the real Clerk
}

// outcome is the result of an action, or a question before it.
type outcome struct {
	Bad     bool
	Text    string
	Lines   []string // one per person with an error
	Confirm *button  // nil if this is a result
}

// Base returns the path of the tenant's page.
func (v *view) Base() string { return "/tenants/" + url.PathEscape(v.Tenant) }

// Organization reports whether the tenant is a Clerk organization.
func (v *view) Organization() bool { return isOrganization(v.Tenant) }

// At returns a path below Base with the current filter and page.
func (v *view) At(below string) string { return v.link(below, v.State, v.Cursors, nil) }

// Filter returns the first page of the members in a state.
func (v *view) Filter(state clerkinvite.Status) string { return v.link("", state, nil, nil) }

// Filters returns the filters of the list: all members, and each state.
func (*view) Filters() []clerkinvite.Status {
	return append([]clerkinvite.Status{""}, clerkinvite.Statuses()...)
}

// PreviousPage returns the page before this one.
func (v *view) PreviousPage() string {
	return v.link("", v.State, v.Cursors[:len(v.Cursors)-1], nil)
}

// NextPage returns the page after this one.
func (v *view) NextPage() string {
	return v.link("", v.State, append(slices.Clone(v.Cursors), v.Next), nil)
}

// Count returns how many members are in a state, or in all states together.
func (v *view) Count(state clerkinvite.Status) int {
	if state != "" {
		return v.Counts[state]
	}
	all := 0
	for _, n := range v.Counts {
		all += n
	}
	return all
}

func (v *view) link(below string, state clerkinvite.Status, cursors []string, more url.Values) string {
	q := url.Values{}
	maps.Copy(q, more)
	if state != "" {
		q.Set("state", string(state))
	}
	if v.Search != "" {
		q.Set("q", v.Search)
	}
	if len(cursors) > 0 {
		q["cursor"] = cursors
	}
	path := v.Base() + below
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return path
}

func parsePages() (*template.Template, error) {
	return template.New("").Funcs(template.FuncMap{
		"label": label, "reason": reasonWords, "ago": ago, "until": until,
		"stamp":   func(t *time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 MST") },
		"machine": func(t *time.Time) string { return t.UTC().Format(time.RFC3339) },
		"roles":   roles,
		"row":     func(v *view, m *clerkinvite.Member) row { return row{v, m} },
	}).ParseFS(web, "web/*.html")
}

// roles returns the roles to choose from, including the chosen one.
func roles(chosen string) []string {
	all := []string{"member", "admin"}
	if !slices.Contains(all, chosen) {
		all = append(all, chosen)
	}
	return all
}

// row is a member on the page.
type row struct {
	View *view
	*clerkinvite.Member
}

// button is an action for a member.
type button struct{ Name, Label, ID, Action string }

// Verbs returns the buttons for the member's state. The library checks again when one is pressed.
func (r row) Verbs() []button {
	var out []button
	add := func(name, label string) {
		out = append(out, button{name, label, r.ID, r.View.At("/members/" + r.ID + "/" + name)})
	}
	switch r.Status {
	case clerkinvite.StatusReserved:
		add("revoke", "Revoke")
	case clerkinvite.StatusPending:
		add("resend", "Resend")
		add("revoke", "Revoke")
	case clerkinvite.StatusActive:
		add("remove", "Remove")
	default:
		add("invite", "Invite again")
	}
	return out
}

// load reads the members, their counts, and the demo's state.
func (p *program) load(ctx context.Context, v *view) error {
	params := clerkinvite.ListParams{TenantID: v.Tenant, EmailPrefix: v.Search, NewestFirst: true, Limit: pageSize}
	if v.State != "" {
		params.Statuses = []clerkinvite.Status{v.State}
	}
	if len(v.Cursors) > 0 {
		params.Cursor = v.Cursors[len(v.Cursors)-1]
	}
	list, err := p.invites.List(ctx, params)
	if err != nil {
		return err
	}
	v.Members, v.Next = list.Members, list.Next
	if v.Counts, err = p.invites.Counts(ctx, v.Tenant); err != nil {
		return err
	}
	if p.demo != nil {
		v.Demo = p.demo.view()
	}
	return nil
}

// render writes a template, or the error.
func (p *program) render(w http.ResponseWriter, r *http.Request, v *view, name string, status int) {
	var page bytes.Buffer
	err := p.load(r.Context(), v)
	if err == nil {
		err = p.pages.ExecuteTemplate(&page, name, v)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	content := visible(page.Bytes())
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if name == "live" {
		sum := sha256.Sum256(content)
		tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(content)
}

// visible removes characters that change the direction of text or are invisible: an address or a tenant must not look like another one.
func visible(page []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, page)
}

func (p *program) showMembers(w http.ResponseWriter, r *http.Request, v *view) {
	v.Outcome = p.done(r.Context(), v, r.URL.Query())
	p.render(w, r, v, "page", http.StatusOK)
}

// showLive returns the changing parts of the page. app.js asks for them every two seconds.
func (p *program) showLive(w http.ResponseWriter, r *http.Request, v *view) {
	p.render(w, r, v, "live", http.StatusOK)
}

func (p *program) postInvitations(w http.ResponseWriter, r *http.Request, v *view) {
	v.Emails, v.Role = r.PostForm.Get("emails"), r.PostForm.Get("role")
	var people []clerkinvite.InviteParams
	for _, email := range addresses(v.Emails) {
		people = append(people, clerkinvite.InviteParams{TenantID: v.Tenant, Email: email, Role: v.Role, InvitedBy: v.Admin})
	}
	if len(people) == 0 || len(people) > maxMany {
		v.Outcome = &outcome{Bad: true, Text: fmt.Sprintf("Enter 1 to %d addresses.", maxMany)}
		p.render(w, r, v, "page", http.StatusUnprocessableEntity)
		return
	}
	// After that, the remaining people are reserved and invited in the background.
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	results, err := p.invites.InviteMany(ctx, people, nil)
	if err != nil {
		p.log.WarnContext(r.Context(), "inviting stopped early", "err", err)
	}
	counts := map[clerkinvite.Status]int{}
	var failed, retry []string
	var worst error
	for i, result := range results {
		if result.Err == nil {
			counts[result.Member.Status]++
			continue
		}
		failed = append(failed, people[i].Email+": "+trouble(result.Err))
		var clerk *clerkinvite.ClerkInvitationError
		if errors.As(result.Err, &clerk) && clerk.Queued() {
			counts[clerkinvite.StatusReserved]++
		} else {
			retry = append(retry, people[i].Email)
		}
		if worst == nil || statusOf(result.Err) > statusOf(worst) {
			worst = result.Err
		}
	}
	if worst == nil {
		http.Redirect(w, r, v.link("", v.State, v.Cursors, url.Values{"done": {"invite"}, "n": {numbers(counts)}}), http.StatusSeeOther)
		return
	}
	v.Emails = strings.Join(retry, "\n")
	if more := len(failed) - maxLines; more > 1 {
		failed = append(failed[:maxLines], fmt.Sprintf("and %d more", more))
	}
	v.Outcome = &outcome{Bad: true, Text: summary(counts, len(retry)), Lines: failed}
	status, _ := p.explain(w, r, worst)
	p.render(w, r, v, "page", status)
}

func statusOf(err error) int {
	status, _ := clerkinvite.HTTPError(err)
	return status
}

func (p *program) postVerb(w http.ResponseWriter, r *http.Request, v *view) {
	name := r.PathValue("verb")
	verbs := map[string]verb{"resend": p.invites.Resend, "revoke": p.invites.Revoke, "remove": p.invites.Remove, "invite": p.reinvite(v)}
	do, known := verbs[name]
	if !known {
		p.fail(w, r, refusal{http.StatusNotFound, "unknown action"})
		return
	}
	ref := clerkinvite.Ref{TenantID: v.Tenant, ID: r.PathValue("id")}
	if (name == "revoke" || name == "remove") && r.PostForm.Get("sure") == "" {
		p.ask(w, r, v, name, ref)
		return
	}
	_, err := do(r.Context(), ref)
	if err == nil {
		http.Redirect(w, r, v.link("", v.State, v.Cursors, url.Values{"done": {name}, "who": {r.PathValue("id")}}), http.StatusSeeOther)
		return
	}
	status, _ := p.explain(w, r, err)
	v.Outcome = &outcome{Bad: true, Text: "That did not work. " + sentence(trouble(err))}
	p.render(w, r, v, "page", status)
}

// ask shows a question before a member is changed. Its form has the same address as the button, and the value that answers it.
func (p *program) ask(w http.ResponseWriter, r *http.Request, v *view, name string, ref clerkinvite.Ref) {
	m, err := p.invites.Get(r.Context(), ref)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	confirm := &button{name, "Remove", m.ID, v.At("/members/" + m.ID + "/" + name)}
	v.Outcome = &outcome{Text: "Remove " + m.Email + " from " + v.Tenant + "?", Confirm: confirm}
	if name == "revoke" {
		confirm.Label, v.Outcome.Text = "Revoke", "Revoke the invitation of "+m.Email+"?"
	}
	p.render(w, r, v, "page", http.StatusOK)
}

// reinvite invites a member whose invitation has ended, with the same role.
func (p *program) reinvite(v *view) verb {
	return func(ctx context.Context, ref clerkinvite.Ref) (*clerkinvite.Member, error) {
		m, err := p.invites.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		return p.invites.Invite(ctx, clerkinvite.InviteParams{TenantID: m.TenantID, Email: m.Email, Role: m.Role, Data: m.Data, InvitedBy: v.Admin})
	}
}

// done returns the outcome to show after a form's redirect. The URL contains only numbers and IDs, so that a link cannot make the page
// show any text.
func (p *program) done(ctx context.Context, v *view, q url.Values) *outcome {
	verb := q.Get("done")
	switch verb {
	case "":
		return nil
	case "invite":
		if q.Has("n") {
			return &outcome{Text: summary(readNumbers(q.Get("n")), 0)}
		}
	}
	if text := p.demo.done(q); text != "" {
		return &outcome{Text: text}
	}
	m, err := p.invites.Get(ctx, clerkinvite.Ref{TenantID: v.Tenant, ID: q.Get("who")})
	if err != nil {
		return nil
	}
	return &outcome{Text: didWords(verb, m)}
}
