package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
	"github.com/clerkinvite/clerkinvite/sqlitestore"
)

// demoOrganization is the tenant that is a Clerk organization.
const demoOrganization = "org_initech"

// demo is the fake Clerk over HTTP, its emails on the page, and the switches that break it.
type demo struct {
	clerk   *clerkinvitetest.Clerk
	journal *journal
	client  *http.Client
	hookURL string

	losesWebhooks atomic.Bool
	down          atomic.Bool
	limited       atomic.Bool
}

// openDemo starts the fake, and opens the files for its state and the members.
func (p *program) openDemo(ctx context.Context, cfg *config, options *clerkapi.Options) error {
	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return err
	}
	if err := p.lock(ctx, cfg.dir); err != nil {
		return err
	}
	if err := p.openStore(ctx, filepath.Join(cfg.dir, "members.db")); err != nil {
		return err
	}
	cfg.secretKey, cfg.signingSecret = "sk_test_demo", clerkinvitetest.WebhookSecret
	clerk := clerkinvitetest.NewClerk()
	clerk.AddOrganization(demoOrganization, clerkinvitetest.OrganizationSpec{MaxMembers: 5})
	d := &demo{clerk: clerk, hookURL: p.url + "/webhooks/clerk", client: options.HTTPClient}
	var err error
	if d.journal, err = openJournal(filepath.Join(cfg.dir, "clerk.jsonl"), d.clerk, cfg.secretKey); err != nil {
		return err
	}
	p.closers = append(p.closers, d.journal.file.Close)

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: d.journal.handler(), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	p.closers = append(p.closers, func() error {
		err := server.Close()
		<-served
		return err
	})
	options.BaseURL = "http://" + listener.Addr().String() + "/v1"
	p.demo = d
	return nil
}

// lock refuses a directory that another process uses: each would have its own users at the fake Clerk. It locks an empty SQLite file,
// because that works on every operating system, and the lock ends with the process.
func (p *program) lock(ctx context.Context, dir string) error {
	db, err := sql.Open("sqlite", filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	p.closers = append(p.closers, db.Close)
	db.SetMaxOpenConns(1) // takes the lock and keeps it
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		return fmt.Errorf("the directory %q is in use: stop the other process, or choose another directory with -data (%w)", dir, err)
	}
	return nil
}

// openStore opens the members' database.
func (p *program) openStore(ctx context.Context, path string) error {
	store, err := sqlitestore.Open(path)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, store.Close)
	p.store = store
	return store.Migrate(ctx)
}

// demoView is the part of the page for the fake.
type demoView struct {
	LosesWebhooks bool
	Down          bool
	Limited       bool
	Inbox         []letter
}

// Tenants returns tenants to link to. Any other name in the URL works, too.
func (*demoView) Tenants() []string { return []string{"acme", "globex", demoOrganization} }

// letter is an email of the fake.
type letter struct {
	clerkinvitetest.Mail

	Status string // of the invitation
}

// Time returns when the letter was sent.
func (l letter) Time() *time.Time { return &l.At }

// view returns the state of the fake, with its latest emails, newest first.
func (d *demo) view() *demoView {
	v := &demoView{LosesWebhooks: d.losesWebhooks.Load(), Down: d.down.Load(), Limited: d.limited.Load()}
	sent := d.clerk.SentMail()
	slices.Reverse(sent)
	for _, mail := range sent[:min(len(sent), 8)] {
		status := ""
		for _, inv := range d.clerk.Invitations(mail.To) {
			if inv.ID == mail.InvitationID {
				status = string(inv.Status)
			}
		}
		v.Inbox = append(v.Inbox, letter{mail, status})
	}
	return v
}

// postDemo handles the demo's buttons: accept as the invited person, and break things.
func (p *program) postDemo(w http.ResponseWriter, r *http.Request, v *view) {
	d, ctx := p.demo, r.Context()
	name, result, on := r.PathValue("verb"), url.Values{}, r.PostForm.Get("to") == "on"
	var err error
	switch name {
	case "accept":
		result, err = d.accept(ctx, r.PostForm.Get("invitation"))
	case "webhooks":
		d.losesWebhooks.Store(on)
	case "clerk":
		d.down.Store(on)
		d.setFaults()
	case "limit":
		d.limited.Store(on)
		d.setFaults()
	case "reconcile":
		var report *clerkinvite.ReconcileReport
		if report, err = p.invites.Reconcile(ctx, nil); err == nil {
			result.Set("n", fmt.Sprintf("%d-%d-%d", report.Activated, report.Removed+report.Expired+report.Revoked, report.LeftOver))
		}
	default:
		p.fail(w, r, refusal{http.StatusNotFound, "unknown action"})
		return
	}
	if err != nil {
		status, _ := p.explain(w, r, err)
		v.Outcome = &outcome{Bad: true, Text: "That did not work. " + sentence(trouble(err))}
		p.render(w, r, v, "page", status)
		return
	}
	result.Set("done", "demo-"+name)
	http.Redirect(w, r, v.link("", v.State, v.Cursors, result), http.StatusSeeOther)
}

// done returns the text to show after a button of the demo, or "" for other redirects.
func (d *demo) done(q url.Values) string {
	if d == nil {
		return ""
	}
	var activated, ended, leftOver int
	switch q.Get("done") {
	case "demo-accept":
		if q.Has("lost") {
			return "The invitation was accepted at Clerk, but the webhook was lost. Reconcile will find it."
		}
		return "The invitation was accepted at Clerk, and the webhook was delivered."
	case "demo-reconcile":
		_, _ = fmt.Sscanf(q.Get("n"), "%d-%d-%d", &activated, &ended, &leftOver)
		if activated+ended+leftOver == 0 {
			return "Reconciled: nothing to repair."
		}
		return fmt.Sprintf("Reconciled: %d had joined, %d had ended, %d left-over invitations were revoked.", activated, ended, leftOver)
	case "demo-webhooks":
		return either(d.losesWebhooks.Load(), "Webhooks get lost.", "Webhooks arrive.")
	case "demo-clerk":
		return either(d.down.Load(), "Clerk is down.", "Clerk is up.")
	case "demo-limit":
		return either(d.limited.Load(), "Clerk’s rate limit is reached.", "Clerk’s rate limit has ended.")
	}
	return ""
}

func either(yes bool, one, other string) string {
	if yes {
		return one
	}
	return other
}

// setFaults breaks the fake as the switches say: it responds 503 to every request, or 429 to every create.
func (d *demo) setFaults() {
	d.clerk.ClearFaults()
	if d.down.Load() {
		d.clerk.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Empty503, Times: -1, RetryAfter: 2 * time.Second})
	}
	if d.limited.Load() {
		limit := clerkinvitetest.RateLimited(5 * time.Second)
		limit.For = 0 // until the switch ends it
		d.clerk.Fail(limit)
	}
}

// accept follows the link of an invitation. The fake creates the user and sends a signed webhook over HTTP.
func (d *demo) accept(ctx context.Context, invitation string) (result url.Values, err error) {
	webhook, err := d.journal.accept(invitation)
	if err != nil {
		return nil, refusal{http.StatusConflict, "this link no longer works"}
	}
	webhooks := append(d.clerk.OrganizationEvents(), webhook)
	if d.losesWebhooks.Load() {
		return url.Values{"lost": {"1"}}, nil
	}
	for _, webhook := range webhooks {
		if err := d.deliver(ctx, webhook); err != nil {
			return nil, err
		}
	}
	return url.Values{}, nil
}

// deliver sends a webhook. An event of an organization may be older, because the application itself has caused it.
func (d *demo) deliver(ctx context.Context, webhook clerkinvitetest.Webhook) error {
	webhook.At = time.Now()
	response, err := d.client.Do(webhook.Request(clerkinvitetest.WebhookSecret, d.hookURL).WithContext(ctx))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		return refusal{http.StatusBadGateway, fmt.Sprintf("the webhook's response was %d; Clerk would retry it", response.StatusCode)}
	}
	return nil
}
