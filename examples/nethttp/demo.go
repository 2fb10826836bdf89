package main

import (
	"context"
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

// demo is the fake Clerk behind HTTP, with its emails on the page, and the switches that let it misbehave.
type demo struct {
	clerk   *clerkinvitetest.Clerk
	journal *journal
	client  *http.Client
	hookURL string

	losesWebhooks atomic.Bool
	down          atomic.Bool
}

// openDemo starts the fake, and opens the files that keep its state and the members across restarts.
func (p *program) openDemo(ctx context.Context, cfg *config, options *clerkapi.Options) error {
	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return err
	}
	if err := p.openStore(ctx, filepath.Join(cfg.dir, "members.db")); err != nil {
		return err
	}
	cfg.secretKey, cfg.signingSecret = "sk_test_demo", clerkinvitetest.WebhookSecret
	d := &demo{clerk: clerkinvitetest.NewClerk(), hookURL: p.url + "/webhooks/clerk", client: options.HTTPClient}
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

// openStore opens the database of the members.
func (p *program) openStore(ctx context.Context, path string) error {
	store, err := sqlitestore.Open(path)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, store.Close)
	p.store = store
	return store.Migrate(ctx)
}

// demoView is what the page shows of the fake.
type demoView struct {
	LosesWebhooks bool
	Down          bool
	Inbox         []letter
}

// Tenants are some to go to. Any other name in the URL is one too.
func (*demoView) Tenants() []string { return []string{"acme", "globex"} }

// letter is one of the emails that the fake would have sent.
type letter struct {
	clerkinvitetest.Mail

	Status string // of its invitation
}

// Time is when the letter was sent.
func (l letter) Time() *time.Time { return &l.At }

// view returns the state of the fake, with its latest emails, the newest first.
func (d *demo) view() *demoView {
	v := &demoView{LosesWebhooks: d.losesWebhooks.Load(), Down: d.down.Load()}
	sent := d.clerk.SentMail()
	slices.Reverse(sent)
	for _, mail := range sent[:min(len(sent), 8)] {
		status := ""
		for _, inv := range d.clerk.Invitations(mail.To) {
			if inv.ID == mail.InvitationID {
				status = inv.Status
			}
		}
		v.Inbox = append(v.Inbox, letter{mail, status})
	}
	return v
}

// postDemo does what nobody can do on the real page: play the invited person, and break things.
func (p *program) postDemo(w http.ResponseWriter, r *http.Request, v *view) {
	d, ctx := p.demo, r.Context()
	name, told := r.PathValue("verb"), url.Values{}
	var err error
	switch name {
	case "accept":
		told, err = d.accept(ctx, r.PostForm.Get("invitation"))
	case "webhooks":
		d.losesWebhooks.Store(r.PostForm.Get("to") == "on")
	case "clerk":
		d.setDown(r.PostForm.Get("to") == "on")
	case "reconcile":
		var report *clerkinvite.ReconcileReport
		if report, err = p.invites.Reconcile(ctx, nil); err == nil {
			told.Set("n", fmt.Sprintf("%d-%d-%d", report.Activated, report.Removed+report.Expired+report.Revoked, report.LeftOver))
		}
	default:
		p.fail(w, r, refusal{http.StatusNotFound, "there is no such button"})
		return
	}
	if err != nil {
		status, _ := p.explain(w, r, err)
		v.Outcome = &outcome{Bad: true, Text: "That did not work. " + sentence(trouble(name, err))}
		p.render(w, r, v, "page", status)
		return
	}
	told.Set("done", "demo-"+name)
	http.Redirect(w, r, v.link("", v.State, v.Cursor, told), http.StatusSeeOther)
}

// done says what the redirect after a button of the demo has to tell, "" if it was none.
func (d *demo) done(q url.Values) string {
	if d == nil {
		return ""
	}
	var activated, ended, leftOver int
	switch q.Get("done") {
	case "demo-accept":
		if q.Has("lost") {
			return "The invitation is accepted at Clerk, and the webhook got lost: only Reconcile can find out."
		}
		return "The invitation is accepted at Clerk, and its webhook was delivered here."
	case "demo-reconcile":
		_, _ = fmt.Sscanf(q.Get("n"), "%d-%d-%d", &activated, &ended, &leftOver)
		if activated+ended+leftOver == 0 {
			return "Reconciled: all is as Clerk says."
		}
		return fmt.Sprintf("Reconciled: %d had joined, %d had ended, %d left over at Clerk.", activated, ended, leftOver)
	case "demo-webhooks", "demo-clerk":
		return fmt.Sprintf("Webhooks %s. Clerk %s.", either(d.losesWebhooks.Load(), "get lost", "arrive"), either(d.down.Load(), "answers 503", "answers"))
	}
	return ""
}

func either(yes bool, one, other string) string {
	if yes {
		return one
	}
	return other
}

// setDown lets the fake answer every request with 503, or no request any more.
func (d *demo) setDown(down bool) {
	d.down.Store(down)
	d.clerk.ClearFaults()
	if down {
		d.clerk.Fail(clerkinvitetest.Fault{Kind: clerkinvitetest.Empty503, Times: -1, RetryAfter: 2 * time.Second})
	}
}

// accept follows the link of an invitation: the fake makes the user, and sends the webhook as Clerk does, signed and over HTTP.
func (d *demo) accept(ctx context.Context, invitation string) (told url.Values, err error) {
	webhook, err := d.journal.accept(invitation)
	if err != nil {
		return nil, refusal{http.StatusConflict, "this link is dead"}
	}
	if d.losesWebhooks.Load() {
		return url.Values{"lost": {"1"}}, nil
	}
	answer, err := d.client.Do(webhook.Request(clerkinvitetest.WebhookSecret, d.hookURL).WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return nil, refusal{http.StatusBadGateway, fmt.Sprintf("the webhook was answered with %d; Clerk would send it again", answer.StatusCode)}
	}
	return url.Values{}, nil
}
