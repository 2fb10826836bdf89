package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

//go:embed web
var web embed.FS

// program is the application.
type program struct {
	url     string // its address
	log     *slog.Logger
	guard   guard
	stub    bool // the guard lets everyone in, and the page says so
	invites *clerkinvite.Service
	store   clerkinvite.Store
	hooks   http.Handler // Clerk's webhooks
	demo    *demo        // nil with the real Clerk
	pages   *template.Template
	closers []func() error // called in reverse order
}

// open returns the program. If it fails, it closes everything that it has opened.
func open(ctx context.Context, cfg config, url string) (_ *program, err error) {
	p := &program{url: url, log: cfg.log, guard: cfg.guard, stub: cfg.demoSignIn}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.pages, err = parsePages(); err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}, Timeout: 30 * time.Second}
	p.closers = append(p.closers, func() error { client.CloseIdleConnections(); return nil })
	options := &clerkapi.Options{BaseURL: cfg.apiURL, HTTPClient: client}
	if cfg.demo() {
		if err := p.openDemo(ctx, &cfg, options); err != nil {
			return nil, err
		}
	} else if err := p.openPostgreSQL(ctx, cfg.databaseURL); err != nil {
		return nil, err
	}
	api, err := clerkapi.New(cfg.secretKey, options)
	if err != nil {
		return nil, fmt.Errorf("CLERK_SECRET_KEY or CLERK_API_URL: %w", err)
	}
	p.invites, err = clerkinvite.New(clerkinvite.Config{
		API: api, Organizations: api, Store: p.store, Authorize: organize,
		Logger: cfg.log, Lease: cfg.timing.lease, ResendCooldown: cfg.timing.cooldown,
	})
	if err != nil {
		return nil, err
	}
	verifier, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(cfg.signingSecret)}})
	if err != nil {
		return nil, err
	}
	p.hooks = p.invites.WebhookHandler(verifier)
	return p, nil
}

// isOrganization reports whether a tenant is a Clerk organization: its ID is the organization's.
func isOrganization(tenant string) bool { return strings.HasPrefix(tenant, "org_") }

// organize is Config.Authorize. It makes invitations of a tenant that is a Clerk organization invitations into the organization.
func organize(_ context.Context, p *clerkinvite.InviteParams) error {
	if !isOrganization(p.TenantID) {
		return nil
	}
	p.Organization = &clerkinvite.Organization{ID: p.TenantID, Role: "org:member"}
	if p.Role == "admin" {
		p.Organization.Role = "org:admin"
	}
	return nil
}

func (p *program) openPostgreSQL(ctx context.Context, databaseURL string) error {
	cfg, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return errors.New("DATABASE_URL must be like postgres://user:password@host:5432/database, with the password percent-encoded") // err may contain it
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	p.closers = append(p.closers, func() error { pool.Close(); return nil })
	store := clerkinvite.NewPgxStore(pool, nil)
	p.store = store
	return store.Migrate(ctx)
}

// close closes everything that open has opened.
func (p *program) close() error {
	var errs []error
	for _, closer := range slices.Backward(p.closers) {
		errs = append(errs, closer())
	}
	return errors.Join(errs...)
}

// handler returns the handler for all requests.
func (p *program) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /static/{file}", static)
	p.routePages(mux)
	p.routeAPI(mux)

	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fail(w, r, refusal{http.StatusForbidden, "this request was sent from another site"})
	}))
	pages := crossOrigin.Handler(mux)
	if p.stub {
		pages = onlyByName(pages)
		if p.demo == nil {
			pages = onlyDirect(pages, p.fail)
		}
	}
	all := http.NewServeMux()
	all.Handle("POST /webhooks/clerk", p.hooks) // protected by the signature; may come through a proxy
	all.Handle("/", pages)
	return headers(all)
}

// headers sets the security headers of every response.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// With "no-referrer", browsers would send forms with the origin null.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	if strings.HasSuffix(name, ".html") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, web, "web/"+name)
}

// fail writes err, as a problem document for the API and as a page otherwise.
func (p *program) fail(w http.ResponseWriter, r *http.Request, err error) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		p.problem(w, r, err)
		return
	}
	status, message := p.explain(w, r, err)
	var page bytes.Buffer
	if err := p.pages.ExecuteTemplate(&page, "failure", failure{http.StatusText(status), sentence(message)}); err != nil {
		p.log.ErrorContext(r.Context(), "the page of an error", "err", err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(visible(page.Bytes()))
}

// failure is the data of the page of an error.
type failure struct{ Title, Text string }

// explain returns the status and the text of an error, sets Retry-After, and logs server errors. The text may contain the address
// that the admin typed; the log does not.
func (p *program) explain(w http.ResponseWriter, r *http.Request, err error) (status int, message string) {
	status, message = clerkinvite.HTTPError(err)
	if seconds := retryAfter(err); seconds > 0 {
		w.Header().Set("Retry-After", seconds.String())
	}
	if status >= 500 {
		p.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "route", r.Pattern, "status", status, "err", err)
	}
	return status, message
}
