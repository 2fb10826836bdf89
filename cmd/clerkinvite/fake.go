package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

// fakeKey is the only key that the fake accepts. Clerk does not accept it.
const fakeKey = "sk_test_fake_of_clerkinvite"

func fakeCommand() command {
	return command{
		name: "fake", summary: "serve a fake Clerk, to try the command without an account",
		details: `Prints the environment variables for the other commands and for an application. The application must pass CLERK_API_URL as
clerkapi.Options.BaseURL. For each email that Clerk would send, it prints a line to standard error. Open the link in a browser or
with curl to accept the invitation as the invited person. With --webhooks, the application then gets a signed webhook.
GET /token/USER returns a session token, valid for an hour, which Clerk's SDK verifies with CLERK_API_URL. Its azp is http://localhost:3000.

It sends no emails and forgets everything when it ends. It is not for production: it listens on this machine only, and accepts
only its own key, which Clerk does not accept. So a command with the fake's variables cannot reach Clerk, and a command with
Clerk's variables cannot use the fake. Its signing secret is public: never use it outside tests.

  clerkinvite fake > fake.env      # in one terminal
  . ./fake.env                     # in another one, before the other commands
  clerkinvite fake --webhooks http://localhost:8080/webhooks/clerk
  clerkinvite fake --organization org_acme --organization org_small=5    # two organizations, one with five seats

As JSON: {"CLERK_API_URL", "CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET"}.`,
		prepare: func(t *tool, flags *flag.FlagSet) func(context.Context, []string) error {
			listen := flags.String("listen", "localhost:4010", "the `address` to listen on; must be a loopback address, and port 0 chooses a free port")
			webhooks := flags.String("webhooks", "", "deliver signed webhooks to this `URL`")
			clerk := clerkinvitetest.NewClerk()
			flags.Func("organization", "have this `organization`, such as org_acme; org_acme=5 has five seats for members and pending invitations", addOrganization(clerk))
			return func(ctx context.Context, _ []string) error { return t.runFake(ctx, clerk, *listen, *webhooks) }
		},
	}
}

var organizationID = regexp.MustCompile(`^org_\w{1,200}$`)

// addOrganization returns the flag --organization.
func addOrganization(clerk *clerkinvitetest.Clerk) func(string) error {
	added := make(map[string]bool)
	return func(s string) error {
		id, number, limited := strings.Cut(s, "=")
		seats, err := strconv.Atoi(number)
		switch {
		case !organizationID.MatchString(id), limited && (err != nil || seats < 1):
			return errors.New("must be like org_acme, or org_acme=5 with the number of seats")
		case added[id]:
			return fmt.Errorf("%s is set twice", id)
		}
		added[id] = true
		clerk.AddOrganization(id, clerkinvitetest.OrganizationSpec{MaxMembers: seats})
		return nil
	}
}

// fake is one run of the command.
type fake struct {
	t        *tool
	clerk    *clerkinvitetest.Clerk
	sessions *sessions
	webhooks string // "" for none

	deliveries sync.WaitGroup
	mu         sync.Mutex // for standard error and printed
	printed    int        // number of emails
}

// fakeEnvironment is the printed document.
type fakeEnvironment struct {
	APIURL        string `json:"CLERK_API_URL"`
	SecretKey     string `json:"CLERK_SECRET_KEY"`
	WebhookSecret string `json:"CLERK_WEBHOOK_SIGNING_SECRET"`
}

func (t *tool) runFake(ctx context.Context, clerk *clerkinvitetest.Clerk, listen, webhooks string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		return usagef("--listen must be a loopback address such as localhost:4010: the fake must not be reachable from other machines")
	}
	if u, err := url.Parse(webhooks); webhooks != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil) {
		return usagef("--webhooks must be like http://localhost:8080/webhooks/clerk")
	}
	sessions, err := newSessions()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	base := "http://" + net.JoinHostPort(host, port)

	f := &fake{t: t, clerk: clerk, sessions: sessions, webhooks: webhooks}
	f.clerk.SetNow(t.env.now)
	f.clerk.SetSecretKey(fakeKey)
	f.clerk.SetLink(func(id string) string { return base + "/accept/" + id })
	f.clerk.OnCall(func(context.Context, clerkinvitetest.Call, clerkinvitetest.When) {
		f.printEmails()
		f.deliverAll(ctx, f.clerk.OrganizationEvents())
	})
	mux := http.NewServeMux()
	mux.Handle("/", f.clerk.Handler())
	mux.HandleFunc("GET /accept/{id}", func(w http.ResponseWriter, r *http.Request) { f.accept(ctx, w, r.PathValue("id")) })
	mux.HandleFunc("GET /v1/jwks", sessions.serveKeys)
	mux.HandleFunc("GET /token/{user}", f.serveToken)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	env := fakeEnvironment{base + "/v1", fakeKey, clerkinvitetest.WebhookSecret}
	err = t.print(env, func(w io.Writer) {
		fmt.Fprintf(w, "export CLERK_API_URL=%s\nexport CLERK_SECRET_KEY=%s\nexport CLERK_WEBHOOK_SIGNING_SECRET=%s\n",
			env.APIURL, env.SecretKey, env.WebhookSecret)
	})
	f.sayf("This is a fake Clerk at %s, for tests only. It sends no emails.", base)
	if err == nil {
		select {
		case <-ctx.Done(): // the usual way to end
		case err = <-served:
		}
	}
	err = errors.Join(err, server.Close())
	f.deliveries.Wait()
	return err
}

// sayf prints a line.
func (f *fake) sayf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = f.t.stderr.Write(safe(fmt.Appendf(nil, format+"\n", args...)))
}

// printEmails prints the emails since the last call.
func (f *fake) printEmails() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, mail := range f.clerk.SentMail()[f.printed:] {
		_, _ = f.t.stderr.Write(safe(fmt.Appendf(nil, "email to %s: %s\n", mail.To, mail.URL)))
		f.printed++
	}
}

// accept accepts an invitation as the invited person. The delivery of its webhook ends with ctx.
func (f *fake) accept(ctx context.Context, w http.ResponseWriter, id string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	webhook, err := f.clerk.AcceptInvitation(id)
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintln(w, "Not accepted. Either there is no such pending invitation, or its user cannot sign in.")
		return
	}
	next := `Run "clerkinvite reconcile", or Reconcile in the application, to make the member active.`
	if f.webhooks != "" {
		next = "The application gets a webhook."
	}
	f.deliverAll(ctx, append(f.clerk.OrganizationEvents(), webhook))
	_, _ = fmt.Fprintf(w, "Invitation %s is accepted. %s\n", id, next)
}

// serveToken returns a session token of a user, without a sign-in.
func (f *fake) serveToken(w http.ResponseWriter, r *http.Request) {
	user, err := f.clerk.GetUser(r.Context(), r.PathValue("user"))
	if err != nil {
		http.Error(w, "no such user", http.StatusNotFound)
		return
	}
	token, err := f.sessions.token(user.ID, f.t.env.now())
	if err != nil {
		http.Error(w, "the token could not be signed", http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, token)
}

// deliverAll delivers webhooks in the background, if an endpoint is set.
func (f *fake) deliverAll(ctx context.Context, webhooks []clerkinvitetest.Webhook) {
	if f.webhooks == "" {
		return
	}
	for _, webhook := range webhooks {
		f.deliveries.Go(func() { f.deliver(ctx, webhook) })
	}
}

// deliver sends a webhook, and repeats it if it fails, as Clerk does at first.
func (f *fake) deliver(ctx context.Context, webhook clerkinvitetest.Webhook) {
	client := &http.Client{Timeout: 15 * time.Second}
	for _, wait := range []time.Duration{5 * time.Second, 5 * time.Minute, 0} {
		webhook.At = f.t.env.now()
		result := "no response"
		response, err := client.Do(webhook.Request(clerkinvitetest.WebhookSecret, f.webhooks).WithContext(ctx))
		if err == nil {
			result = response.Status
			_ = response.Body.Close()
		}
		f.sayf("webhook %s: %s", webhook.ID, result)
		if err == nil && response.StatusCode/100 == 2 {
			return
		}
		if wait == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
