package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/internal/pgtest"
)

// patience bounds each wait for something to appear.
const patience = 30 * time.Second

// browser is the one Chromium of all tests; each has a tab of its own.
var browser struct {
	sync.Mutex

	ctx     context.Context // with the browser, nil before it was started
	dir     string
	cancels []context.CancelFunc
}

// chromium returns the program to start.
func chromium() string {
	for _, name := range []string{os.Getenv("CLERKINVITE_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// openBrowser starts Chromium if no test has yet.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	path := chromium()
	if path == "" {
		pgtest.Missing(t, "chromium", "no Chromium on this machine; install it (Debian, Ubuntu: apt-get install -y --no-install-recommends chromium) "+
			"or set CLERKINVITE_TEST_CHROMIUM, then run the tests with -count=1")
	}
	browser.Lock()
	defer browser.Unlock()
	if browser.ctx != nil {
		return browser.ctx
	}
	dir, err := os.MkdirTemp("", "nethttp-chromium-") //nolint:usetesting // of all tests
	require.NoError(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(dir), chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en"), chromedp.WSURLReadTimeout(patience))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses root otherwise; it sees pages of this test only
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	browser.dir, browser.cancels = dir, []context.CancelFunc{cancel, stop}
	require.NoError(t, chromedp.Do(ctx))
	browser.ctx = ctx //nolint:fatcontext // of all tests
	return ctx
}

// closeBrowser ends Chromium.
func closeBrowser() {
	browser.Lock()
	defer browser.Unlock()
	if browser.ctx != nil {
		_ = chromedp.Cancel(browser.ctx)
	}
	for _, cancel := range browser.cancels {
		cancel()
	}
	// Its last processes may still be writing.
	for range 100 {
		if browser.dir == "" || os.RemoveAll(browser.dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tab is a page in the browser.
type tab struct {
	*app

	t   *testing.T
	ctx context.Context
}

// openTab shows a page of the program. Whatever it logs fails the test: an exception, a script or style that the
// Content-Security-Policy has stopped.
func (a *app) openTab(t *testing.T, path string, width int64) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(openBrowser(t))
	t.Cleanup(cancel)
	b := &tab{a, t, ctx}
	console := chromedp.Console(ctx)
	require.NoError(t, chromedp.Do(ctx, chromedp.EmulateViewport(width, 900)))
	messages := make(chan string)
	go func() {
		defer close(messages)
		for m, err := range console {
			if err != nil {
				return
			}
			if m.Source != "network" { // an answer of 4xx is told there too
				messages <- m.String()
			}
		}
	}()
	var said []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m := range messages {
			said = append(said, m)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		require.Empty(t, said, "the console")
	})
	b.open(path)
	return b
}

func (b *tab) open(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.Navigate(b.url+path)))
}

// eval returns the value of an expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(b.t, err, expression)
	return v
}

// wait waits until an expression is true.
func (b *tab) wait(expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !eval[bool](b, "!!("+expression+")"); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Fail(b.t, "it has not become true: "+expression, "%s", eval[string](b, "document.body.innerText"))
		}
	}
}

// says waits until an element shows a text.
func (b *tab) says(selector, text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("[...document.querySelectorAll(%s)].some((el) => el.innerText.includes(%s))", quote(selector), quote(text)))
}

func quote(s string) string { return string(must(json.Marshal(s))) }

// click clicks with the mouse, where the element is.
func (b *tab) click(selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))), selector)
}

// keys types into whatever has the focus.
func (b *tab) keys(keys string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.KeyEvent(keys)))
}

// fill writes into the form's field for addresses.
func (b *tab) fill(text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.SetValue(chromedp.CSS("#emails"), text)))
}

// row is the selector of a member's row.
func (b *tab) row(email string) string {
	b.t.Helper()
	return "#m-" + b.member(b.t, email).ID
}

// press clicks one of the buttons of a member.
func (b *tab) press(verb, email string) {
	b.t.Helper()
	b.click("#b-" + verb + "-" + b.member(b.t, email).ID)
}

// accept follows the link of the newest email to somebody.
func (b *tab) accept(email string) {
	b.t.Helper()
	open := b.clerk.OpenInvitations(email)
	require.NotEmpty(b.t, open)
	b.click("#accept-" + open[len(open)-1].ID)
}

// The life of an invitation, by mouse: invited, refused as a duplicate, not sent again at once, accepted, resolved by the webhook,
// removed.
func TestBrowserInvites(t *testing.T) {
	t.Parallel()
	b := start(t).openTab(t, "/", 1200)
	require.Equal(t, "Members of acme", eval[string](b, "document.title"))
	b.says("#pager", "Nobody yet")
	b.fill("Ada@Example.com")
	b.click("#invite-button")
	b.says("#outcome", "1 invited.")
	b.says("#list .row", "ada@example.com")
	require.Empty(t, eval[string](b, "emails.value"), "the form is empty again")
	require.Equal(t, "invite-button", eval[string](b, "document.activeElement.id"), "nothing was reloaded")
	m := b.member(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))
	b.says(b.row(m.Email)+" .when", "just now, expires in 30 days")
	require.Equal(t, "Expires on "+m.ExpiresAt.Format("2 January 2006, 15:04:05 MST"), eval[string](b, "document.querySelectorAll('.row time')[1].title"))

	b.fill("ada@example.com")
	b.click("#invite-button")
	b.says("#outcome .bad", "ada@example.com: is in this tenant already (invited)")
	require.Equal(t, "ada@example.com", eval[string](b, "emails.value"), "to be corrected")
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))

	b.press("resend", "ada@example.com")
	b.says("#outcome .bad", "An email went out a moment ago. Try again in")
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))

	b.accept("ada@example.com")
	b.says("#outcome", "its webhook was delivered")
	b.says(b.row(m.Email), "Active")
	m = b.member(t, m.Email)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
	require.Equal(t, must(b.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{m.Email}}))[0].ID, m.ClerkUserID)

	b.press("remove", m.Email)
	b.says("#outcome", "ada@example.com: removed.")
	require.Equal(t, clerkinvite.StatusRemoved, b.member(t, m.Email).Status)
	b.press("invite", m.Email)
	b.says("#outcome", "ada@example.com has joined.")
	require.Equal(t, clerkinvite.StatusActive, b.member(t, m.Email).Status)
	require.Equal(t, 1, b.clerk.Emails(), "who has an account needs none")
}

// Several at once, each told apart; resend; revoke; the filter.
func TestBrowserManyResendRevoke(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) { cfg.timing.cooldown = -1 })
	a.clerk.AddVerifiedUser("linked@example.com")
	b := a.openTab(t, "/tenants/acme", 1200)
	b.fill("ada@example.com\n\n  joan@example.com\nnobody\nADA@example.com\nlinked@example.com\n")
	b.click("#invite-button")
	b.says("#outcome", "2 invited, 1 joined at once, without an email, 2 not invited.")
	b.says("#outcome", "nobody: this address")
	b.says("#outcome", "ADA@example.com: is in this tenant already")
	require.Equal(t, "nobody\nADA@example.com", eval[string](b, "emails.value"))
	require.Equal(t, 2, a.clerk.Emails())
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "linked@example.com").Status)

	first := a.member(t, "joan@example.com")
	b.press("resend", "joan@example.com")
	b.says("#outcome", "joan@example.com has been sent a new invitation.")
	require.Equal(t, 2, a.clerk.EmailsTo("joan@example.com"))
	require.Len(t, a.clerk.OpenInvitations("joan@example.com"), 1)
	require.NotEqual(t, first.InvitationID, a.member(t, "joan@example.com").InvitationID)
	b.says("#inbox", "revoked")

	b.press("revoke", "ada@example.com")
	b.says("#outcome", "ada@example.com: revoked.")
	require.Equal(t, clerkinvite.StatusRevoked, a.member(t, "ada@example.com").Status)
	require.Empty(t, a.clerk.OpenInvitations("ada@example.com"))

	b.click(`#filters a[href$="=revoked"]`)
	b.wait(`document.querySelectorAll("#list .row").length === 1 && location.search === "?state=revoked"`)
	b.press("invite", "ada@example.com")
	b.says("#outcome", "ada@example.com has been sent a new invitation.")
	b.says("#pager", "Nobody is in this state.")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "ada@example.com").Status)
}

// Without the mouse: every step is reached by Tab, and the focus stays where somebody works while the list changes.
func TestBrowserKeyboardOnly(t *testing.T) {
	t.Parallel()
	b := start(t).openTab(t, "/tenants/acme", 1200)
	// tab goes on until an element has the focus, which must be seen.
	tab := func(id string) {
		t.Helper()
		for range 40 {
			b.keys(kb.Tab)
			if eval[string](b, "document.activeElement.id") == id {
				require.Equal(t, "solid", eval[string](b, "getComputedStyle(document.activeElement).outlineStyle"), id)
				return
			}
		}
		require.Fail(t, "Tab does not reach "+id)
	}
	tab("emails")
	b.keys("ada@example.com" + kb.Enter + "joan@example.com")
	tab("role")
	b.keys("a") // admin
	tab("invite-button")
	b.keys(kb.Enter)
	b.says("#outcome", "2 invited.")
	ada, joan := b.member(t, "ada@example.com"), b.member(t, "joan@example.com")
	require.Equal(t, "admin", ada.Role)
	require.Equal(t, 2, b.clerk.Emails())

	// Somebody else changes another row, and Tab goes on from where it was.
	tab("b-resend-" + ada.ID)
	_, err := b.invites.Revoke(t.Context(), joan.Ref())
	require.NoError(t, err)
	b.says("#m-"+joan.ID, "Revoked")
	require.Equal(t, "b-resend-"+ada.ID, eval[string](b, "document.activeElement.id"))
	tab("b-revoke-" + ada.ID)
	b.keys(" ")
	b.says("#m-"+ada.ID, "Revoked")
	require.Equal(t, clerkinvite.StatusRevoked, b.member(t, ada.Email).Status)
	require.Equal(t, "b-invite-"+ada.ID, eval[string](b, "document.activeElement.id"), "the button is gone; its row has the focus")
	b.keys(kb.Enter)
	b.says("#m-"+ada.ID, "Invited")
	tab("switch-webhooks")
	b.keys(" ")
	b.says("#outcome", "Webhooks get lost.")
	require.Equal(t, "true switch-webhooks", eval[string](b, `document.activeElement.getAttribute("aria-checked") + " " + document.activeElement.id`))
	require.Equal(t, "status polite", eval[string](b, "outcome.getAttribute('role') + ' ' + outcome.ariaLive"))
	require.Zero(t, eval[int](b, `[...document.querySelectorAll("input:not([type=hidden]), select, textarea")].filter((el) => !el.labels.length).length`))
	require.Zero(t, eval[int](b, `[...document.querySelectorAll("[onclick], [role=button], div[tabindex]")].length`))
}

// What goes wrong in the demo goes wrong as with the real Clerk, and comes right.
func TestBrowserTroubleWithClerk(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) { cfg.timing.interval = 50 * time.Millisecond })
	b := a.openTab(t, "/tenants/acme", 1200)
	b.fill("ada@example.com")
	b.click("#invite-button")
	b.says("#outcome", "1 invited.")

	// The webhook gets lost; Reconcile finds out.
	b.click("#switch-webhooks")
	b.says("#outcome", "Webhooks get lost.")
	b.accept("ada@example.com")
	b.says("#outcome", "only Reconcile can find out")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "ada@example.com").Status)
	b.click("#reconcile")
	b.says("#outcome", "1 had joined")
	b.says(b.row("ada@example.com"), "Active")
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "ada@example.com").Status)

	// Clerk is down; when it is back the invitation goes out by itself, once, and the page shows it without being asked.
	b.click("#switch-clerk")
	b.says("#outcome", "Clerk answers 503.")
	b.fill("joan@example.com")
	b.click("#invite-button")
	b.says("#outcome .bad", "joan@example.com: Clerk does not answer. It is kept")
	b.says(b.row("joan@example.com"), "Waiting")
	require.Zero(t, a.clerk.EmailsTo("joan@example.com"))
	b.click("#switch-clerk")
	b.says("#outcome", "Clerk answers.")
	b.says(b.row("joan@example.com"), "Invited")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "joan@example.com").Status)
	require.Equal(t, 1, a.clerk.EmailsTo("joan@example.com"))
}

// hostile are texts that would be seen if one of them got out of where it belongs.
var hostile = []string{`<img src=x onerror=pwned=1>`, `"><script>pwned=1</script>`, `'-pwned-'`, `{{.}}`, `</textarea><svg onload=pwned=1>`, `javascript:pwned=1`}

// What people type is text, wherever it comes out: on a phone it does not push the page to the side either.
func TestBrowserHostileTextOnAPhone(t *testing.T) {
	t.Parallel()
	a := start(t)
	tenant := `<script>pwned=1</script> "&'/?#` + strings.Repeat("x", 60)
	path := "/tenants/" + pathEscape(tenant)
	var members []*clerkinvite.Member
	for i, role := range append(hostile, strings.Repeat("w", 255)) {
		email := fmt.Sprintf("%s%d@example.com", `o'brien&"'*+/=?^_{|}~`, i)
		if i == 0 {
			email = strings.Repeat("m", 64) + "@" + strings.Repeat("long.", 30) + "example.com"
		}
		email = strings.ReplaceAll(email, `"`, "")
		m, err := a.invites.Invite(t.Context(), clerkinvite.InviteParams{TenantID: tenant, Email: email, Role: role})
		require.NoError(t, err)
		members = append(members, m)
	}
	b := a.openTab(t, path, 390)
	b.fill(strings.Join(hostile, "\n"))
	b.click("#invite-button")
	b.says("#outcome", "6 not invited")
	b.wait("!invite.hasAttribute('aria-busy')")
	for _, text := range hostile {
		b.says("#outcome li", text)
	}
	require.Equal(t, strings.Join(hostile, "\n"), eval[string](b, "emails.value"))
	roles := eval[[]string](b, `[...document.querySelectorAll(".role")].map((el) => el.textContent)`)
	emails := eval[[]string](b, `[...document.querySelectorAll("#list .email")].map((el) => el.textContent)`)
	for i, m := range members {
		require.Equal(t, m.Role, roles[i])
		require.Equal(t, m.Email, emails[i])
	}
	require.Equal(t, "Members of "+tenant, eval[string](b, "document.title"))
	b.click("#b-revoke-" + members[3].ID)
	b.says("#m-"+members[3].ID, "Revoked")
	require.Empty(t, a.clerk.OpenInvitations(members[3].Email))
	b.accept(members[5].Email)
	b.says("#m-"+members[5].ID, "Active")
	require.Equal(t, "undefined", eval[string](b, "typeof pwned"))
	require.Equal(t, 390, eval[int](b, "innerWidth"))
	require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), 390, "no scrolling to the side")
	wide := eval[[]string](b, `[...document.querySelectorAll("body *")].filter((el) => el.getBoundingClientRect().right > 390.5).map((el) => el.outerHTML.slice(0, 80))`)
	require.Empty(t, wide)
}

func pathEscape(s string) string { return strings.TrimPrefix((&view{Tenant: s}).Base(), "/tenants/") }

// Twenty to a page, by cursor, and buttons lead back to the page they are on.
func TestBrowserPages(t *testing.T) {
	t.Parallel()
	a := start(t)
	var people []clerkinvite.InviteParams
	for i := range pageSize + 3 {
		people = append(people, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%02d@example.com", i)})
	}
	_, err := a.invites.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	_, err = a.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b := a.openTab(t, "/tenants/acme?state=pending", 1200)
	b.wait(fmt.Sprintf(`document.querySelectorAll("#list .row").length === %d`, pageSize))
	b.click("#pager a")
	b.wait(`document.querySelectorAll("#list .row").length === 3`)
	b.press("revoke", "p21@example.com")
	b.says("#outcome", "p21@example.com: revoked.")
	b.wait(`document.querySelectorAll("#list .row").length === 2`)
	require.Contains(t, eval[string](b, "location.search"), "cursor=")
	b.click("#pager a")
	b.wait(fmt.Sprintf(`document.querySelectorAll("#list .row").length === %d && !location.search.includes("cursor")`, pageSize))
}

// The same without JavaScript: forms, redirects, and what went wrong on the page that comes back.
func TestFormsWithoutJavaScript(t *testing.T) {
	t.Parallel()
	a := start(t)
	follow := func(r reply) string {
		t.Helper()
		require.Equal(t, http.StatusSeeOther, r.status, r.body)
		page := a.send(t, "GET", r.header.Get("Location"), "")
		require.Equal(t, 200, page.status)
		return page.body
	}
	require.Contains(t, follow(a.form(t, "/invitations", "emails", "ada@example.com\r\njoan@example.com", "role", "admin")), "2 invited.")
	ada := a.member(t, "ada@example.com")
	again := a.form(t, "/invitations", "emails", "ada@example.com\r\nnew@example.com", "role", "admin")
	require.Equal(t, 409, again.status)
	require.Contains(t, again.body, "1 invited, 1 not invited.")
	require.Contains(t, again.body, "ada@example.com: is in this tenant already (invited)")
	require.Contains(t, again.body, ">ada@example.com</textarea>", "who is invited is no longer in the form")
	require.Equal(t, 422, a.form(t, "/invitations", "emails", " \r\n ").status)
	require.Equal(t, 422, a.form(t, "/invitations", "emails", strings.Repeat("a\n", maxMany+1)).status)
	require.Equal(t, 413, a.form(t, "/invitations", "emails", strings.Repeat("a", maxBody)).status)

	early := a.form(t, "/members/"+ada.ID+"/resend")
	require.Equal(t, 429, early.status)
	require.NotEmpty(t, early.header.Get("Retry-After"))
	require.Contains(t, early.body, "An email went out a moment ago")
	revoked := a.form(t, "/members/"+ada.ID+"/revoke?state=pending&cursor=")
	require.Contains(t, revoked.header.Get("Location"), "state=pending")
	require.Contains(t, follow(revoked), "ada@example.com: revoked.")
	require.Equal(t, 404, a.form(t, "/members/"+ada.ID+"/promote").status)
	require.Equal(t, 404, a.form(t, "/members/nobody/revoke").status)
	require.Equal(t, 404, a.form(t, "/demo/nothing").status)
	require.Equal(t, 409, a.form(t, "/demo/accept", "invitation", ada.InvitationID).status, "the link is dead")
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	refused := a.form(t, "/invitations", "emails", "alan@example.com")
	require.Equal(t, 422, refused.status)
	require.Contains(t, refused.body, "alan@example.com: Clerk refuses it: Clerk’s allow list does not have it")
	require.Contains(t, refused.body, "· Clerk’s allow list does not have it", "in the list, too")
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.HTML502})
	down := a.form(t, "/invitations", "emails", "kay@example.com")
	require.Equal(t, 502, down.status)
	require.Contains(t, down.body, "kay@example.com: Clerk does not answer. It is kept")

	// Nobody can make the page say something by a link.
	page := a.send(t, "GET", "/tenants/acme?done=<b>&who=<i>&n=<u>&state=pending", "").body
	require.NotContains(t, page, `class="outcome"`)
	require.NotContains(t, page, "<u>")
	require.Equal(t, 422, a.send(t, "GET", "/tenants/acme?state=<b>", "").status)
	require.Equal(t, 422, a.send(t, "GET", "/tenants/acme?cursor=<b>", "").status)

	// The fragment that app.js asks for is not sent twice.
	live := a.send(t, "GET", "/tenants/acme/live", "")
	require.NotContains(t, live.body, "<html")
	require.Equal(t, 304, a.send(t, "GET", "/tenants/acme/live", "", "If-None-Match", live.header.Get("ETag")).status)
	a.invite(t, "last@example.com")
	require.Equal(t, 200, a.send(t, "GET", "/tenants/acme/live", "", "If-None-Match", live.header.Get("ETag")).status)
}

// Every page says what a browser may do with it, and other sites may do nothing.
func TestPagesAreClosedToOtherSites(t *testing.T) {
	t.Parallel()
	a := start(t)
	for _, path := range []string{"/", "/tenants/acme", "/tenants/acme/live", "/static/app.js", "/static/app.css", "/static/icon.svg", "/nowhere", "/api/nowhere"} {
		h := a.send(t, "GET", path, "").header
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
		require.Contains(t, h.Get("Content-Security-Policy"), "default-src 'none'", path)
		require.Contains(t, h.Get("Content-Security-Policy"), "frame-ancestors 'none'", path)
		require.NotContains(t, h.Get("Content-Security-Policy"), "unsafe", path)
		require.Empty(t, h.Get("Set-Cookie"), path)
	}
	require.Equal(t, 404, a.send(t, "GET", "/static/page.html", "").status)
	require.Equal(t, "no-store", a.send(t, "GET", "/tenants/acme", "").header.Get("Cache-Control"))
	for _, header := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example.com"}, {"Origin", "null"}} {
		r := a.send(t, "POST", "/tenants/acme/invitations", "emails=x@example.com", "Content-Type", "application/x-www-form-urlencoded", header[0], header[1])
		require.Equal(t, 403, r.status, header)
	}
	require.Equal(t, 421, a.send(t, "GET", "/tenants/acme", "", "Host", "evil.example.com").status, "a name that somebody points here")
	require.Equal(t, 200, a.send(t, "GET", "/tenants/acme", "", "Host", "localhost:1").status)
	list, err := a.invites.List(t.Context(), clerkinvite.ListParams{TenantID: "acme"})
	require.NoError(t, err)
	require.Empty(t, list.Members)
}

// Two programs on one PostgreSQL are one application: what one does, the other's page shows.
func TestBrowserSeesWhatAnotherProcessDoes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	clerk := clerkinvitetest.NewClerk()
	server := httptest.NewServer(clerk.Handler())
	defer server.Close()
	shared := func(cfg *config) {
		cfg.databaseURL, cfg.secretKey, cfg.signingSecret, cfg.apiURL = db.DSN, "sk_test_1", clerkinvitetest.WebhookSecret, server.URL+"/v1"
		cfg.demoSignIn = true
	}
	one, other := start(t, shared), start(t, shared)
	b := one.openTab(t, "/tenants/acme", 1200)
	require.Equal(t, 201, other.json(t, "POST", "", `{"email":"ada@example.com"}`).status)
	b.says("#list", "ada@example.com")
	webhook, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	resp, err := other.client.Do(webhook.Request(clerkinvitetest.WebhookSecret, other.url+"/webhooks/clerk"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	b.says("#list", "Active")
}

// Pictures for people, on demand:
//
//	go test -run TestScreenshot -args -screenshot docs/screenshot.png
var (
	screenshot = flag.String("screenshot", "", "write a picture of the page to this file")
	shotWidth  = flag.Int64("screenshot-width", 1200, "in pixels")
	shotHeight = flag.Int64("screenshot-height", 0, "in pixels; 0 is the whole page")
	shotScheme = flag.String("screenshot-scheme", "light", "light or dark")
)

func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("it is made on demand: -args -screenshot FILE")
	}
	a := start(t)
	plausible(t, a)
	b := a.openTab(t, "/tenants/acme", *shotWidth)
	height := *shotHeight
	if height == 0 {
		height = eval[int64](b, "document.documentElement.scrollHeight")
	}
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: *shotScheme}}})
		return err
	}), chromedp.EmulateViewport(*shotWidth, height)))
	b.fill("lin@example.com\nradia@example.com")
	b.click("#invite-button")
	b.says("#outcome", "1 invited, 1 joined at once")
	b.wait("!invite.hasAttribute('aria-busy')")
	if *shotHeight == 0 {
		height = eval[int64](b, "document.documentElement.scrollHeight")
		require.NoError(t, chromedp.Do(b.ctx, chromedp.EmulateViewport(*shotWidth, height)))
	}
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*screenshot, smaller(t, picture), 0o644))
}

// smaller returns a PNG with 256 colours: of those that are alike the most frequent one, and of these the most frequent.
func smaller(t *testing.T, picture []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(picture))
	require.NoError(t, err)
	counts := map[color.Color]int{}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			counts[full.At(x, y)]++
		}
	}
	var colours []color.Color
	alike := map[[3]uint32]bool{}
	for _, c := range slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] }) {
		r, g, b, _ := c.RGBA()
		if key := [3]uint32{r >> 12, g >> 12, b >> 12}; !alike[key] || counts[c] > 1000 {
			alike[key] = true
			colours = append(colours, c)
		}
	}
	few := image.NewPaletted(full.Bounds(), colours[:min(len(colours), 256)])
	draw.Draw(few, few.Bounds(), full, image.Point{}, draw.Src)
	var out bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few))
	return out.Bytes()
}

// plausible is a tenant that has been in use for some weeks.
func plausible(t *testing.T, a *app) {
	t.Helper()
	start := time.Now()
	now := start
	clock := func() time.Time { return now }
	a.clerk.SetNow(clock)
	svc := must(clerkinvite.New(clerkinvite.Config{API: a.clerk, Store: a.store, Now: clock}))
	at := func(before time.Duration) { now = start.Add(-before) }
	invite := func(email, role string, days int) clerkinvite.Ref {
		m, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: email, Role: role, ExpiresInDays: days})
		require.NoError(t, err)
		return m.Ref()
	}
	join := func(email string) {
		_, err := a.clerk.Accept(email)
		require.NoError(t, err)
		users := must(a.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{email}}))
		must(svc.ResolveUser(t.Context(), users[0].ID))
	}
	const day = 24 * time.Hour
	at(41 * day)
	invite("grace@example.com", "admin", 0)
	at(40 * day)
	join("grace@example.com")
	at(17 * day)
	invite("margaret@example.com", "member", 0)
	invite("dennis@example.com", "member", 7)
	at(16 * day)
	join("margaret@example.com")
	at(10 * day)
	must(svc.Reconcile(t.Context(), nil))
	at(6 * day)
	barbara := invite("barbara@example.com", "member", 0)
	at(5 * day)
	must(svc.Revoke(t.Context(), barbara))
	at(26 * time.Hour)
	invite("ada@example.com", "admin", 0)
	at(3 * time.Hour)
	invite("edsger@example.com", "member", 7)
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	_, err := svc.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "alan@example.com", Role: "member"})
	require.Error(t, err)
	at(0)
	a.clerk.SetNow(time.Now)
	a.clerk.AddVerifiedUser("radia@example.com")
}
