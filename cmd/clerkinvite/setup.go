package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// open returns the store in DATABASE_URL and what closes its connections. Nothing is connected before the first statement.
func (t *tool) open(ctx context.Context) (*clerkinvite.PgxStore, *pgxpool.Pool, error) {
	dsn := t.env.getenv("DATABASE_URL")
	if dsn == "" {
		return nil, nil, usagef("DATABASE_URL is not set: set it to the application's PostgreSQL, as in postgres://user@host/database")
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, nil, usageError{err} // without the password
	}
	cfg.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: t.schema}), pool, nil
}

// api returns the connection to Clerk. A nil transport is net/http's own.
func (t *tool) api(transport http.RoundTripper) (*clerkapi.Client, error) {
	key := t.env.getenv("CLERK_SECRET_KEY")
	if key == "" {
		return nil, usagef("CLERK_SECRET_KEY is not set: set it to the secret key of the Clerk instance (sk_test_… or sk_live_…)")
	}
	api, err := clerkapi.New(key, &clerkapi.Options{BaseURL: t.apiURL(), HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, usageError{err}
	}
	return api, nil
}

// apiURL returns the root of the Backend API; "" is Clerk's own. Some of Clerk's SDKs want CLERK_API_URL without the version, and
// so it may be missing.
func (t *tool) apiURL() string {
	base := strings.TrimRight(t.env.getenv("CLERK_API_URL"), "/")
	if u, err := url.Parse(base); err == nil && u.Host != "" && u.Path == "" {
		base += "/v1"
	}
	return base
}

// service returns the service, and what closes its connections. Without Clerk it can only read.
func (t *tool) service(ctx context.Context, withClerk bool, config clerkinvite.Config) (*clerkinvite.Service, *clerkinvite.PgxStore, func(), error) {
	config.API, config.Now = noClerk{}, t.env.now
	if withClerk {
		api, err := t.api(nil)
		if err != nil {
			return nil, nil, nil, err
		}
		config.API = api
	}
	store, pool, err := t.open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	config.Store = store
	svc, err := clerkinvite.New(config)
	if err != nil {
		pool.Close()
		return nil, nil, nil, err
	}
	return svc, store, pool.Close, nil
}

// noClerk stands for Clerk where a command does not ask it.
type noClerk struct{}

var errNoClerk = errors.New("this command does not ask Clerk")

func (noClerk) FindUsers(context.Context, clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	return nil, errNoClerk
}

func (noClerk) CreateInvitation(context.Context, clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	return nil, errNoClerk
}

func (noClerk) CreateInvitations(context.Context, []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	return nil, errNoClerk
}

func (noClerk) ListInvitations(context.Context, clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	return nil, errNoClerk
}

func (noClerk) RevokeInvitation(context.Context, clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	return nil, errNoClerk
}
