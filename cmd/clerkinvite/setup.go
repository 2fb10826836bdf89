package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

// open returns the store in DATABASE_URL and its pool. It does not connect before the first statement.
func (t *tool) open(ctx context.Context) (*clerkinvite.PgxStore, *pgxpool.Pool, error) {
	dsn := t.env.getenv("DATABASE_URL")
	if dsn == "" {
		return nil, nil, usagef("DATABASE_URL is not set: set it to the application's PostgreSQL, such as postgres://user@host/database")
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
	return clerkinvite.NewPgxStore(pool, &clerkinvite.PgxOptions{Schema: t.schema, Now: t.env.databaseNow}), pool, nil
}

// parseFault returns an error without any part of DATABASE_URL, because any part of a malformed URL may be the password.
func parseFault(err error) error {
	text := err.Error()
	text = text[strings.LastIndex(text, "`: ")+len("`: "):] // the text before repeats the URL
	for _, known := range []struct{ prefix, text string }{
		{"failed to parse as URL", "must be like postgres://user:password@host:5432/database; percent-encode special characters in the password"},
		{"failed to parse as keyword/value", "must be like postgres://user:password@host:5432/database, or host=… user=… password='…' dbname=…"},
		{"failed to configure TLS", "has invalid TLS settings: check sslmode, sslrootcert, sslcert and sslkey, and that the files exist"},
		{"failed to read service", "names a service that cannot be read"},
		{"invalid port", "has an invalid port"},
	} {
		if strings.HasPrefix(text, known.prefix) {
			return errors.New("DATABASE_URL " + known.text)
		}
	}
	return errors.New("DATABASE_URL has an invalid parameter")
}

// api returns a Clerk client. A nil transport means net/http's default.
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

// apiURL returns the URL of the Backend API, or "" for Clerk's own. The error does not repeat the URL, which may contain a password.
func (t *tool) apiURL() (string, error) {
	base := strings.TrimRight(t.env.getenv("CLERK_API_URL"), "/")
	if base == "" {
		return "", nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(base, "?#") {
		return "", usagef("CLERK_API_URL must be like https://host/v1, without user, query or fragment; unset it to use Clerk's own URL")
	}
	return base, nil
}

// service returns a service, its store, and a function that closes its connections. Without Clerk it can only read.
func (t *tool) service(ctx context.Context, withClerk bool) (*clerkinvite.Service, *clerkinvite.PgxStore, func(), error) {
	config := clerkinvite.Config{API: noClerk{}, Organizations: noClerk{}, Now: t.env.now}
	if withClerk {
		api, err := t.api(nil)
		if err != nil {
			return nil, nil, nil, err
		}
		config.API, config.Organizations = api, api
	}
	store, pool, err := t.open(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	config.Store = store
	if t.withoutHook != nil && !*t.withoutHook && withClerk {
		if err := t.mayChange(ctx, store, pool); err != nil {
			pool.Close()
			return nil, nil, nil, err
		}
	}
	svc, err := clerkinvite.New(config)
	if err != nil {
		pool.Close()
		return nil, nil, nil, err
	}
	return svc, store, pool.Close, nil
}

// table is the name of one of the library's tables.
func (t *tool) table(name string) pgx.Identifier {
	if t.schema == "" {
		return pgx.Identifier{name}
	}
	return pgx.Identifier{t.schema, name}
}

// changesMembers defines the flag of commands that change members.
func (t *tool) changesMembers(flags *flag.FlagSet) {
	t.withoutHook = flags.Bool("without-hook", false, "change members, although this command does not call the application's OnChange")
}

// noClerk is the ClerkAPI and OrganizationAPI of commands that do not call Clerk.
type noClerk struct{}

var errNoClerk = errors.New("this command does not call Clerk")

func (noClerk) GetUser(context.Context, string) (*clerkinvite.User, error) { return nil, errNoClerk }

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

func (noClerk) FindMemberships(context.Context, clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	return nil, errNoClerk
}

func (noClerk) AddMember(context.Context, clerkinvite.Membership) error { return errNoClerk }

func (noClerk) RemoveMember(context.Context, clerkinvite.Membership) error { return errNoClerk }
