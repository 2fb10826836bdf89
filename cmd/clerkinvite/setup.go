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
		return nil, nil, usageError{parseFault(err)}
	}
	cfg.MaxConns = 2
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: t.schema}), pool, nil
}

// parseFault says what is wrong with DATABASE_URL, and repeats nothing of it: where it is malformed, any part may be the password.
func parseFault(err error) error {
	text := err.Error()
	text = text[strings.LastIndex(text, "`: ")+len("`: "):] // what it is about; before that it repeats the URL
	for _, known := range []struct{ begins, says string }{
		{"failed to parse as URL", "is not of the form postgres://user:password@host:5432/database; other characters than letters and digits are percent-encoded in a password"},
		{"failed to parse as keyword/value", "is neither postgres://user:password@host:5432/database nor of the form host=… user=… password='…' dbname=…"},
		{"failed to configure TLS", "is not clear about TLS: look at sslmode, sslrootcert, sslcert and sslkey, and whether those files are there"},
		{"failed to read service", "names a service that cannot be read"},
		{"invalid port", "has a port that is none"},
	} {
		if strings.HasPrefix(text, known.begins) {
			return errors.New("DATABASE_URL " + known.says)
		}
	}
	return errors.New("DATABASE_URL has a parameter that is not valid")
}

// api returns the connection to Clerk. A nil transport is net/http's own.
func (t *tool) api(transport http.RoundTripper) (*clerkapi.Client, error) {
	key := t.env.getenv("CLERK_SECRET_KEY")
	if key == "" {
		return nil, usagef("CLERK_SECRET_KEY is not set: set it to the secret key of the Clerk instance (sk_test_… or sk_live_…)")
	}
	base, err := t.apiURL()
	if err != nil {
		return nil, err
	}
	api, err := clerkapi.New(key, &clerkapi.Options{BaseURL: base, HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, usagef("CLERK_SECRET_KEY: %w", err)
	}
	return api, nil
}

// apiURL returns the root of the Backend API; "" is Clerk's own. Some of Clerk's SDKs want CLERK_API_URL without the version, and
// so it may be missing. The error does not repeat the URL, which can hold a password.
func (t *tool) apiURL() (string, error) {
	base := strings.TrimRight(t.env.getenv("CLERK_API_URL"), "/")
	if base == "" {
		return "", nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(base, "?#") {
		return "", usagef("CLERK_API_URL is not of the form https://host/v1, with no user, query or fragment: unset it for Clerk's own address")
	}
	if !strings.HasSuffix(u.Path, "/v1") {
		base += "/v1"
	}
	return base, nil
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

func (noClerk) RevokeInvitation(context.Context, string) (*clerkinvite.Invitation, error) {
	return nil, errNoClerk
}
