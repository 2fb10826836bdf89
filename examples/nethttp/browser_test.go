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

// patience limits each wait.
const patience = 30 * time.Second

// browser is a Chromium for all tests. Each test has its own tab.
var browser struct {
	sync.Mutex

	ctx     context.Context // nil before the browser is started
	dir     string
	cancels []context.CancelFunc
}

// chromium returns the program's path.
func chromium() string {
	for _, name := range []string{os.Getenv("CLERKINVITE_TEST_CHROMIUM"), "chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// openBrowser starts Chromium, once.
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
	dir, err := os.MkdirTemp("", "nethttp-chromium-") //nolint:usetesting // for all tests
	require.NoError(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(dir), chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en"),
		chromedp.Flag("allow-pre-commit-input", true), // otherwise clicks are lost until a page is drawn
		chromedp.WSURLReadTimeout(patience))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // required as root; Chromium only opens pages of this test
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	browser.dir, browser.cancels = dir, []context.CancelFunc{cancel, stop}
	require.NoError(t, chromedp.Do(ctx))
	browser.ctx = ctx //nolint:fatcontext // for all tests
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
	// Its processes may still write files.
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

// openTab opens a page of the program. Console messages fail the test, such as exceptions and violations of the
// Content-Security-Policy.
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
			if m.Source != "network" { // 4xx responses are logged, too
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

// wait waits until the page is loaded with its style, and an expression is true.
func (b *tab) wait(expression string) {
	b.t.Helper()
	isTrue := func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		v, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.readyState === "complete" && !!(`+expression+")"))
		return err == nil && v
	}
	for deadline := time.Now().Add(patience); !isTrue(); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Fail(b.t, "condition was not met: "+expression, "%s", eval[string](b, "document.body.innerText"))
		}
	}
}

// waitText waits until an element contains a text.
func (b *tab) waitText(selector, text string) {
	b.t.Helper()
	b.wait(fmt.Sprintf("[...document.querySelectorAll(%s)].some((el) => el.innerText.includes(%s))", quote(selector), quote(text)))
}

func quote(s string) string { return string(must(json.Marshal(s))) }

// click clicks on an element with the mouse.
func (b *tab) click(selector string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector)))
	for err != nil && strings.Contains(err.Error(), "Could not find node") { // the page has replaced it in between
		err = chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector)))
	}
	require.NoError(b.t, err, selector)
}

// keys types into the focused element.
func (b *tab) keys(keys string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.KeyEvent(keys)))
}

// fill sets the field for addresses.
func (b *tab) fill(text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(b.t, chromedp.Do(ctx, chromedp.SetValue(chromedp.CSS("#emails"), text)))
}

// row returns the selector of a member's row.
func (b *tab) row(email string) string {
	b.t.Helper()
	return "#m-" + b.member(b.t, email).ID
}

// press clicks a button of a member, and then the one in the question, if the button asks.
func (b *tab) press(verb, email string) {
	b.t.Helper()
	b.click("#b-" + verb + "-" + b.member(b.t, email).ID)
	if verb == "revoke" || verb == "remove" {
		b.waitText("#question", email)
		b.click("#sure")
		b.wait(`!document.getElementById("question")`)
	}
}

// accept clicks Accept for the newest email to an address.
func (b *tab) accept(email string) {
	b.t.Helper()
	open := b.clerk.OpenInvitations(email)
	require.NotEmpty(b.t, open)
	b.click("#accept-" + open[len(open)-1].ID)
}

// An invitation by mouse: invited, duplicate, resent too early, accepted, resolved by the webhook, removed.
func TestBrowserInvites(t *testing.T) {
	t.Parallel()
	b := start(t).openTab(t, "/", 1200)
	require.Equal(t, "Members of acme", eval[string](b, "document.title"))
	b.waitText("#pager", "No members yet")
	b.fill("Ada@Example.com")
	b.click("#invite-button")
	b.waitText("#outcome", "1 invited.")
	b.waitText("#list .row", "ada@example.com")
	require.Empty(t, eval[string](b, "emails.value"), "the form is empty")
	require.Equal(t, "invite-button", eval[string](b, "document.activeElement.id"), "without a reload")
	m := b.member(t, "ada@example.com")
	require.Equal(t, clerkinvite.StatusPending, m.Status)
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))
	b.waitText(b.row(m.Email)+" .when", "just now, expires in 30 days")
	require.Equal(t, "Expires on "+m.ExpiresAt.Format("2 January 2006, 15:04:05 MST"), eval[string](b, "document.querySelectorAll('.row time')[1].title"))

	b.fill("ada@example.com")
	b.click("#invite-button")
	b.waitText("#outcome .bad", "ada@example.com: is already in this tenant (invited)")
	require.Equal(t, "ada@example.com", eval[string](b, "emails.value"), "to be corrected")
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))

	b.press("resend", "ada@example.com")
	b.waitText("#outcome .bad", "An email was sent a moment ago. Try again in")
	require.Equal(t, 1, b.clerk.EmailsTo("ada@example.com"))

	b.accept("ada@example.com")
	b.waitText("#outcome", "the webhook was delivered")
	b.waitText(b.row(m.Email), "Active")
	m = b.member(t, m.Email)
	require.Equal(t, clerkinvite.StatusActive, m.Status)
	require.Equal(t, must(b.clerk.FindUsers(t.Context(), clerkinvite.UserQuery{Emails: []string{m.Email}}))[0].ID, m.ClerkUserID)

	b.press("remove", m.Email)
	b.waitText("#outcome", "ada@example.com: removed.")
	require.Equal(t, clerkinvite.StatusRemoved, b.member(t, m.Email).Status)
	b.press("invite", m.Email)
	b.waitText("#outcome", "ada@example.com has joined.")
	require.Equal(t, clerkinvite.StatusActive, b.member(t, m.Email).Status)
	require.Equal(t, 1, b.clerk.Emails(), "no email to a person with an account")
}

// Several people with separate errors; resend; revoke; the filter.
func TestBrowserManyResendRevoke(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) { cfg.timing.cooldown = -1 })
	a.clerk.AddVerifiedUser("linked@example.com")
	b := a.openTab(t, "/tenants/acme", 1200)
	b.fill("ada@example.com,\n\n  Clarke, Joan <joan@example.com>; not-an-address\nADA@example.com, linked@example.com\n")
	b.click("#invite-button")
	b.waitText("#outcome", "2 invited, 1 joined without an email, 2 not invited.")
	b.waitText("#outcome", "not-an-address: this address")
	b.waitText("#outcome", "ADA@example.com: is already in this tenant")
	require.Equal(t, "not-an-address\nADA@example.com", eval[string](b, "emails.value"))
	require.Equal(t, 2, a.clerk.Emails())
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "linked@example.com").Status)

	first := a.member(t, "joan@example.com")
	b.press("resend", "joan@example.com")
	b.waitText("#outcome", "joan@example.com was sent a new invitation.")
	require.Equal(t, 2, a.clerk.EmailsTo("joan@example.com"))
	require.Len(t, a.clerk.OpenInvitations("joan@example.com"), 1)
	require.NotEqual(t, first.InvitationID, a.member(t, "joan@example.com").InvitationID)
	b.waitText("#inbox", "revoked")

	b.press("revoke", "ada@example.com")
	b.waitText("#outcome", "ada@example.com: revoked.")
	require.Equal(t, clerkinvite.StatusRevoked, a.member(t, "ada@example.com").Status)
	require.Empty(t, a.clerk.OpenInvitations("ada@example.com"))

	b.click(`#filters a[href$="=revoked"]`)
	b.wait(`document.querySelectorAll("#list .row").length === 1 && location.search === "?state=revoked"`)
	b.press("invite", "ada@example.com")
	b.waitText("#outcome", "ada@example.com was sent a new invitation.")
	b.waitText("#pager", "No members in this state.")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "ada@example.com").Status)
}

// Without a mouse: Tab reaches every element, and the focus stays when the list changes.
func TestBrowserKeyboardOnly(t *testing.T) {
	t.Parallel()
	b := start(t).openTab(t, "/tenants/acme", 1200)
	// tab presses Tab until the element has the focus, which must be visible.
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
	b.waitText("#outcome", "2 invited.")
	ada, joan := b.member(t, "ada@example.com"), b.member(t, "joan@example.com")
	require.Equal(t, "admin", ada.Role)
	require.Equal(t, 2, b.clerk.Emails())

	// Another change of the list does not move the focus.
	tab("b-resend-" + ada.ID)
	_, err := b.invites.Revoke(t.Context(), joan.Ref())
	require.NoError(t, err)
	b.waitText("#m-"+joan.ID, "Revoked")
	require.Equal(t, "b-resend-"+ada.ID, eval[string](b, "document.activeElement.id"))
	tab("b-revoke-" + ada.ID)
	b.keys(" ")
	b.waitText("#question", "Revoke the invitation of ada@example.com?")
	require.Equal(t, "Cancel", eval[string](b, "document.activeElement.textContent"))
	b.keys(kb.Escape)
	b.wait("!question.open")
	require.Equal(t, "b-revoke-"+ada.ID, eval[string](b, "document.activeElement.id"), "as before the question")
	require.Equal(t, clerkinvite.StatusPending, b.member(t, ada.Email).Status)
	b.keys(" ")
	b.wait("question.open")
	tab("sure")
	b.keys(kb.Enter)
	b.waitText("#m-"+ada.ID, "Revoked")
	require.Equal(t, clerkinvite.StatusRevoked, b.member(t, ada.Email).Status)
	require.Equal(t, "b-invite-"+ada.ID, eval[string](b, "document.activeElement.id"), "the button is gone; its row has the focus")
	b.keys(kb.Enter)
	b.waitText("#m-"+ada.ID, "Invited")
	tab("switch-webhooks")
	b.keys(" ")
	b.waitText("#outcome", "Webhooks get lost.")
	require.Equal(t, "true switch-webhooks", eval[string](b, `document.activeElement.getAttribute("aria-checked") + " " + document.activeElement.id`))
	require.Equal(t, "status polite", eval[string](b, "outcome.getAttribute('role') + ' ' + outcome.ariaLive"))
	require.Zero(t, eval[int](b, `[...document.querySelectorAll("input:not([type=hidden]), select, textarea")].filter((el) => !el.labels.length && !el.ariaLabel).length`))
	require.Zero(t, eval[int](b, `[...document.querySelectorAll("[onclick], [role=button], div[tabindex]")].length`))
}

// Lost webhooks and failures of Clerk are repaired.
func TestBrowserTroubleWithClerk(t *testing.T) {
	t.Parallel()
	a := start(t, func(cfg *config) { cfg.timing.interval = 50 * time.Millisecond })
	b := a.openTab(t, "/tenants/acme", 1200)
	b.fill("ada@example.com")
	b.click("#invite-button")
	b.waitText("#outcome", "1 invited.")

	// The webhook is lost, and Reconcile repairs that.
	b.click("#switch-webhooks")
	b.waitText("#outcome", "Webhooks get lost.")
	b.accept("ada@example.com")
	b.waitText("#outcome", "Reconcile will find it")
	require.Equal(t, clerkinvite.StatusPending, a.member(t, "ada@example.com").Status)
	b.click("#reconcile")
	b.waitText("#outcome", "1 had joined")
	b.waitText(b.row("ada@example.com"), "Active")
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "ada@example.com").Status)

	// Clerk is down, or limits the rate of invitations. After that, the invitation is sent once, and the page shows it without a reload.
	for _, c := range []struct{ email, breaks, broken, repaired string }{
		{"joan@example.com", "#switch-clerk", "Clerk is down.", "Clerk is up."},
		{"kay@example.com", "#switch-limit", "Clerk’s rate limit is reached.", "Clerk’s rate limit has ended."},
	} {
		b.click(c.breaks)
		b.waitText("#outcome", c.broken)
		b.fill(c.email)
		b.click("#invite-button")
		b.waitText("#outcome", "1 waiting.")
		b.waitText(b.row(c.email), "Waiting")
		require.Zero(t, a.clerk.EmailsTo(c.email))
		b.click(c.breaks)
		b.waitText("#outcome", c.repaired)
		b.waitText(b.row(c.email), "Invited")
		require.Equal(t, clerkinvite.StatusPending, a.member(t, c.email).Status)
		require.Equal(t, 1, a.clerk.EmailsTo(c.email))
	}
}

// hostile are texts that would be visible if they were not escaped.
var hostile = []string{`<img src=x onerror=pwned=1>`, `"><script>pwned=1</script>`, `'-pwned-'`, `{{.}}`, `</textarea><svg onload=pwned=1>`, `javascript:pwned=1`}

// Input is shown as text, and does not make the page wider than a phone.
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
	b.waitText("#outcome", "6 not invited")
	b.wait("!invite.hasAttribute('aria-busy')")
	for _, text := range hostile {
		b.waitText("#outcome li", text)
	}
	b.click("#outcome button")
	b.wait(`!document.querySelector("#outcome dialog").open`)
	require.Equal(t, strings.Join(hostile, "\n"), eval[string](b, "emails.value"))
	roles := eval[[]string](b, `[...document.querySelectorAll(".role")].map((el) => el.textContent)`)
	emails := eval[[]string](b, `[...document.querySelectorAll("#list .email")].map((el) => el.textContent)`)
	slices.Reverse(members) // the newest are first
	for i, m := range members {
		require.Equal(t, m.Role, roles[i])
		require.Equal(t, m.Email, emails[i])
	}
	require.Equal(t, "Members of "+tenant, eval[string](b, "document.title"))
	b.click("#b-revoke-" + members[3].ID)
	b.waitText("#question", members[3].Email)
	b.click("#sure")
	b.waitText("#m-"+members[3].ID, "Revoked")
	b.click("#outcome button")
	require.Empty(t, a.clerk.OpenInvitations(members[3].Email))
	b.accept(members[5].Email)
	b.waitText("#m-"+members[5].ID, "Active")
	require.Equal(t, "undefined", eval[string](b, "typeof pwned"))
	require.Equal(t, 390, eval[int](b, "innerWidth"))
	require.LessOrEqual(t, eval[int](b, "document.documentElement.scrollWidth"), 390, "no scrolling to the side")
	wide := eval[[]string](b, `[...document.querySelectorAll("body *")].filter((el) => el.getBoundingClientRect().right > 390.5).map((el) => el.outerHTML.slice(0, 80))`)
	require.Empty(t, wide)
}

func pathEscape(s string) string { return strings.TrimPrefix((&view{Tenant: s}).Base(), "/tenants/") }

// Pages of 20, newest first, in both directions, with counts. Buttons and searches keep the filter.
func TestBrowserPages(t *testing.T) {
	t.Parallel()
	a := start(t)
	var people []clerkinvite.InviteParams
	for i := range 2*pageSize + 3 {
		people = append(people, clerkinvite.InviteParams{TenantID: "acme", Email: fmt.Sprintf("p%02d@example.com", i)})
	}
	_, err := a.invites.ReserveMany(t.Context(), people)
	require.NoError(t, err)
	_, err = a.invites.Deliver(t.Context(), nil)
	require.NoError(t, err)
	b := a.openTab(t, "/tenants/acme?state=pending", 1200)
	shows := func(first, last string) {
		t.Helper()
		b.wait(fmt.Sprintf(`((rows) => rows[0]?.textContent === %q && rows[rows.length-1].textContent === %q)([...document.querySelectorAll("#list .email")])`,
			first+"@example.com", last+"@example.com"))
	}
	shows("p42", "p23")
	b.click("#pager [rel=next]")
	shows("p22", "p03")
	b.click("#pager [rel=next]")
	shows("p02", "p00")
	b.click("#pager [rel=prev]")
	shows("p22", "p03")
	b.press("revoke", "p21@example.com")
	b.waitText("#outcome", "p21@example.com: revoked.")
	shows("p22", "p02") // the members of this page are still those after the first page
	require.Contains(t, eval[string](b, "location.search"), "cursor=")
	b.click("#pager [rel=prev]")
	shows("p42", "p23")
	require.NotContains(t, eval[string](b, "location.search"), "cursor=")
	b.click("#pager [rel=next]")
	shows("p22", "p02")
	b.click("#pager [rel=next]")
	shows("p01", "p00")
	b.click("#pager a")
	shows("p42", "p23")
	require.Equal(t, "All 43 Waiting 0 Invited 42 Active 0 Refused 0 Revoked 1 Expired 0 Removed 0",
		eval[string](b, `[...document.querySelectorAll("#filters a")].map((a) => a.innerText).join(" ")`))

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	require.NoError(t, chromedp.Do(ctx, chromedp.SetValue(chromedp.CSS("#search [name=q]"), " P1")))
	b.click("#search button")
	shows("p19", "p10")
	require.Equal(t, "pending", eval[string](b, `new URLSearchParams(location.search).get("state")`))
	b.click(`#filters a[href*="state=revoked"]`)
	b.waitText("#pager", "No address begins with this text.")
}

// Results and questions move nothing, and a second click at the same place is never for another person.
func TestBrowserListDoesNotMove(t *testing.T) {
	t.Parallel()
	a := start(t)
	var ended []*clerkinvite.Member
	for i := range 4 {
		m := a.invite(t, fmt.Sprintf("p%d@example.com", i))
		_, err := a.invites.Revoke(t.Context(), m.Ref())
		require.NoError(t, err)
		ended = append(ended, m)
	}
	a.clerk.AddVerifiedUser("ada@example.com")
	a.invite(t, "ada@example.com")
	b := a.openTab(t, "/tenants/acme", 1200)
	tops := func() string {
		return eval[string](b, `[...document.querySelectorAll("#invite, .row")].map((el) => el.getBoundingClientRect().top).join(" ")`)
	}
	before, emails := tops(), a.clerk.Emails()

	// Cancelled: nothing happens. The pointer is where the button was, and a click there meets the question.
	b.click("#b-remove-" + a.member(t, "ada@example.com").ID)
	b.waitText("#question", "Remove ada@example.com from acme?")
	require.True(t, eval[bool](b, `question.contains(document.elementFromPoint(...((r) => [r.x + r.width/2, r.y + r.height/2])(document.querySelector("#b-remove-`+a.member(t, "ada@example.com").ID+`").getBoundingClientRect())))`), "everything else is inert")
	b.click("#question [formmethod=dialog]")
	b.wait("!question.open")
	require.Equal(t, clerkinvite.StatusActive, a.member(t, "ada@example.com").Status)
	require.Equal(t, before, tops())

	// Confirmed. The result is at the place of the question.
	b.click("#b-remove-" + a.member(t, "ada@example.com").ID)
	b.wait("question.open")
	place := eval[[]float64](b, `((r) => [r.x + r.width/2, r.y + r.height/2])(sure.getBoundingClientRect())`)
	b.click("#sure")
	b.waitText("#outcome", "ada@example.com: removed.")
	require.Equal(t, before, tops())
	require.True(t, eval[bool](b, fmt.Sprintf(`outcome.contains(document.elementFromPoint(%f, %f))`, place[0], place[1])), "a second click is on the result")
	b.click("#outcome button")

	// In a filtered list, the row leaves when the pointer does.
	b.click(`#filters a[href$="=revoked"]`)
	b.wait(`document.querySelectorAll("#list .row").length === 4 && location.search === "?state=revoked"`)
	before = tops()
	second := ended[2]
	b.press("invite", second.Email)
	b.waitText("#outcome", second.Email+" was sent a new invitation.")
	require.Equal(t, before, tops())
	require.True(t, eval[bool](b, fmt.Sprintf(`document.getElementById("b-invite-%s").disabled`, second.ID)))
	a.invite(t, "new@example.com")
	_, err := a.invites.Revoke(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "new@example.com"})
	require.NoError(t, err)
	b.waitText("#filters", "Revoked 4")
	require.Equal(t, before, tops(), "newer members move nothing either")
	require.Equal(t, emails+2, a.clerk.Emails())
	b.click("#emails")
	b.waitText("#list", "new@example.com")
	require.NotContains(t, eval[string](b, "list.innerText"), second.Email)
}

// The list of errors is short however many lines are wrong, and a wrong URL has a page that leads back.
func TestBrowserManyErrorsAndWrongURLs(t *testing.T) {
	t.Parallel()
	b := start(t).openTab(t, "/tenants/acme", 1200)
	b.fill(strings.Repeat("not-an-address\n", 42))
	b.click("#invite-button")
	b.waitText("#outcome", "42 not invited.")
	b.waitText("#outcome li:last-child", "and 37 more")
	require.Equal(t, maxLines+1, eval[int](b, `document.querySelectorAll("#outcome li").length`))
	require.Equal(t, strings.TrimSpace(strings.Repeat("not-an-address\n", 42)), eval[string](b, "emails.value"), "to be corrected")

	for _, path := range []string{"/nowhere", "/tenants/acme?cursor=x", "/tenants/" + strings.Repeat("t", 256)} {
		b.open(path)
		b.wait(`document.querySelector("main .bad p").innerText !== ""`)
		b.click("main a")
		b.wait(`document.title === "Members of acme"`)
	}
}

// Without JavaScript: forms, redirects, and errors on the page.
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
	require.Contains(t, again.body, "ada@example.com: is already in this tenant (invited)")
	require.Contains(t, again.body, ">ada@example.com</textarea>", "invited people are no longer in the form")
	require.Equal(t, 422, a.form(t, "/invitations", "emails", " \r\n ").status)
	require.Equal(t, 422, a.form(t, "/invitations", "emails", strings.Repeat("a\n", maxMany+1)).status)
	require.Equal(t, 413, a.form(t, "/invitations", "emails", strings.Repeat("a", maxBody)).status)

	early := a.form(t, "/members/"+ada.ID+"/resend")
	require.Equal(t, 429, early.status)
	require.NotEmpty(t, early.header.Get("Retry-After"))
	require.Contains(t, early.body, "An email was sent a moment ago")
	question := a.form(t, "/members/"+ada.ID+"/revoke?state=pending")
	require.Equal(t, 200, question.status)
	require.Contains(t, question.body, "Revoke the invitation of ada@example.com?")
	require.Contains(t, question.body, `formaction="/tenants/acme/members/`+ada.ID+`/revoke?state=pending" name="sure" value="yes"`)
	require.Equal(t, clerkinvite.StatusPending, a.member(t, ada.Email).Status, "not before the answer")
	revoked := a.form(t, "/members/"+ada.ID+"/revoke?state=pending&q=a", "sure", "yes")
	require.Contains(t, revoked.header.Get("Location"), "q=a")
	require.Contains(t, revoked.header.Get("Location"), "state=pending")
	require.Contains(t, follow(revoked), "ada@example.com: revoked.")
	require.Equal(t, 404, a.form(t, "/members/"+ada.ID+"/promote").status)
	require.Equal(t, 422, a.form(t, "/members/not-an-id/revoke").status)
	require.Equal(t, 404, a.form(t, "/members/00000000-0000-7000-8000-000000000000/revoke").status)
	require.Equal(t, 404, a.form(t, "/demo/nothing").status)
	require.Equal(t, 409, a.form(t, "/demo/accept", "invitation", ada.InvitationID).status, "the link no longer works")
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Status: 403, Code: "not_allowed_access"})
	refused := a.form(t, "/invitations", "emails", "alan@example.com")
	require.Equal(t, 422, refused.status)
	require.Contains(t, refused.body, "alan@example.com: refused: not on Clerk’s allowlist")
	require.Contains(t, refused.body, "· not on Clerk’s allowlist", "in the list, too")
	a.clerk.Fail(clerkinvitetest.Fault{Call: clerkinvitetest.CallCreate, Kind: clerkinvitetest.HTML502})
	down := a.form(t, "/invitations", "emails", "kay@example.com")
	require.Equal(t, 502, down.status)
	require.Contains(t, down.body, "kay@example.com: Clerk does not respond. The invitation is saved")

	// The list of errors is short. The form keeps all addresses to correct.
	wrong := strings.Repeat("not-an-address\n", 42)
	many := a.form(t, "/invitations", "emails", wrong)
	require.Equal(t, 422, many.status)
	require.Contains(t, many.body, "42 not invited.")
	require.Equal(t, maxLines, strings.Count(many.body, "<li>not-an-address: "))
	require.Contains(t, many.body, "<li>and 37 more</li>")
	require.Contains(t, many.body, strings.TrimSpace(wrong)+"</textarea>")

	// A link cannot make the page show a text.
	page := a.send(t, "GET", "/tenants/acme?done=<b>&who=<i>&n=<u>&state=pending", "").body
	require.NotContains(t, page, `class="outcome"`)
	require.NotContains(t, page, "<u>")

	// A wrong URL has a page that leads back.
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/nowhere":                                    {404, "This page does not exist."},
		"/tenants/acme/members/x":                     {404, "This page does not exist."},
		"/tenants/acme?state=<b>":                     {422, "Invalid Statuses"},
		"/tenants/acme?cursor=<b>":                    {422, "Invalid Cursor"},
		"/tenants/acme?q=" + strings.Repeat("q", 255): {422, "Invalid EmailPrefix"},
		"/tenants/" + strings.Repeat("t", 256):        {422, "Invalid TenantID"},
	} {
		r := a.send(t, "GET", path, "")
		require.Equal(t, want.status, r.status, path)
		require.Contains(t, r.body, "<p>"+want.text, path)
		require.Contains(t, r.body, `href="/"`, path)
		require.NotContains(t, r.body, "<b>", path)
	}

	// The fragment for app.js is sent only if it has changed.
	live := a.send(t, "GET", "/tenants/acme/live", "")
	require.NotContains(t, live.body, "<html")
	require.Equal(t, 304, a.send(t, "GET", "/tenants/acme/live", "", "If-None-Match", live.header.Get("ETag")).status)
	a.invite(t, "last@example.com")
	require.Equal(t, 200, a.send(t, "GET", "/tenants/acme/live", "", "If-None-Match", live.header.Get("ETag")).status)
}

// Every page has security headers, and requests from other sites are rejected.
func TestPagesRejectOtherSites(t *testing.T) {
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
	require.Equal(t, 421, a.send(t, "GET", "/tenants/acme", "", "Host", "evil.example.com").status, "a name that points here")
	require.Equal(t, 200, a.send(t, "GET", "/tenants/acme", "", "Host", "localhost:1").status)
	list, err := a.invites.List(t.Context(), clerkinvite.ListParams{TenantID: "acme"})
	require.NoError(t, err)
	require.Empty(t, list.Members)
}

// Two processes share a PostgreSQL: a page shows the changes of the other process.
func TestBrowserShowsChangesOfAnotherProcess(t *testing.T) {
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
	b.waitText("#list", "ada@example.com")
	webhook, err := clerk.Accept("ada@example.com")
	require.NoError(t, err)
	resp, err := other.client.Do(webhook.Request(clerkinvitetest.WebhookSecret, other.url+"/webhooks/clerk"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	b.waitText("#list", "Active")
}

// To make a screenshot:
//
//	go test -C examples/nethttp -run TestScreenshot . -args -screenshot ../../docs/screenshot.png
var screenshot = flag.String("screenshot", "", "write a picture of the page to this file")

func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("only with -args -screenshot FILE")
	}
	a := start(t)
	plausible(t, a)
	const width = 1200
	b := a.openTab(t, "/tenants/acme", width)
	pageHeight := func() int64 { return eval[int64](b, "document.documentElement.scrollHeight") }
	require.NoError(t, chromedp.Do(b.ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}})
		return err
	}), chromedp.EmulateViewport(width, pageHeight())))
	b.fill("lin@example.com\nradia@example.com")
	b.click("#invite-button")
	b.waitText("#outcome", "1 invited, 1 joined")
	b.wait("!invite.hasAttribute('aria-busy')")
	require.NoError(t, chromedp.Do(b.ctx, chromedp.EmulateViewport(width, pageHeight())))
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*screenshot, smaller(t, picture), 0o644))
}

// smaller returns a PNG with the 256 most frequent colours, one of each group of similar ones.
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
	known := map[[3]uint32]bool{}
	for _, c := range slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] }) {
		r, g, b, _ := c.RGBA()
		if key := [3]uint32{r >> 12, g >> 12, b >> 12}; !known[key] || counts[c] > 1000 {
			known[key] = true
			colours = append(colours, c)
		}
	}
	few := image.NewPaletted(full.Bounds(), colours[:min(len(colours), 256)])
	draw.Draw(few, few.Bounds(), full, image.Point{}, draw.Src)
	var out bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, few))
	return out.Bytes()
}

// plausible fills a tenant as after some weeks of use.
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
