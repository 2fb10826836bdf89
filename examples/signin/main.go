// Signin is the program in the README: only a tenant's admins may invite and list people. Clerk's SDK
// verifies their session tokens.
//
//	DATABASE_URL=postgres://… CLERK_SECRET_KEY=sk_test_… CLERK_WEBHOOK_SIGNING_SECRET=whsec_… APP_ORIGIN=http://localhost:3000 go run ./examples/signin
//
// A tenant's first admin comes from the code that creates the tenant, or from the command "clerkinvite
// import". CLERK_API_URL replaces Clerk's URL, for example with the URL of "clerkinvite fake".
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	store := clerkinvite.NewPgxStore(must(pgxpool.New(ctx, os.Getenv("DATABASE_URL"))), nil)
	if err := store.Migrate(ctx); err != nil { // safe if many processes start at the same time
		log.Fatal(err)
	}
	key, url := os.Getenv("CLERK_SECRET_KEY"), cmp.Or(os.Getenv("CLERK_API_URL"), clerk.APIURL)
	api := must(clerkapi.New(key, &clerkapi.Options{BaseURL: url}))
	invites := must(clerkinvite.New(clerkinvite.Config{API: api, Store: store, Logger: slog.Default()}))
	secret := clerkinvite.NewSecret(os.Getenv("CLERK_WEBHOOK_SIGNING_SECRET"))
	webhooks := must(clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{secret}}))
	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{Key: &key, URL: &url}})

	server := &http.Server{Addr: ":8080", Handler: newHandler(invites, webhooks, keys, os.Getenv("APP_ORIGIN")), ReadTimeout: 15 * time.Second}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	_ = invites.Run(ctx, nil) // until a signal arrives: delivers and reconciles in the background
	stop()
	_ = server.Shutdown(context.Background())
}

func newHandler(invites *clerkinvite.Service, webhooks *clerkinvite.WebhookVerifier, keys *jwks.Client, origin string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks/clerk", invites.WebhookHandler(webhooks))
	mux.Handle("POST /tenants/{tenant}/invitations", requireAdmin(invites, func(w http.ResponseWriter, r *http.Request) {
		member, err := invites.Invite(r.Context(), clerkinvite.InviteParams{
			TenantID: r.PathValue("tenant"), Email: r.FormValue("email"), Role: r.FormValue("role"),
		})
		respond(w, r, member, err)
	}))
	mux.Handle("GET /tenants/{tenant}/members", requireAdmin(invites, func(w http.ResponseWriter, r *http.Request) {
		page, err := invites.List(r.Context(), clerkinvite.ListParams{TenantID: r.PathValue("tenant"), NewestFirst: true, Cursor: r.FormValue("cursor")})
		respond(w, r, page, err)
	}))
	return clerkhttp.WithHeaderAuthorization(clerkhttp.JWKSClient(keys), clerkhttp.AuthorizedPartyMatches(origin))(mux)
}

// requireAdmin calls next if the signed-in user is an active member of the tenant with the role "admin".
func requireAdmin(invites *clerkinvite.Service, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := clerk.SessionClaimsFromContext(r.Context())
		if !ok {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		member, err := invites.Get(r.Context(), clerkinvite.Ref{TenantID: r.PathValue("tenant"), ClerkUserID: claims.Subject})
		switch {
		case errors.Is(err, clerkinvite.ErrNotFound), err == nil && (member.Status != clerkinvite.StatusActive || member.Role != "admin"):
			http.Error(w, "you are not an admin of this tenant", http.StatusForbidden)
		case err != nil:
			respond(w, r, nil, err)
		default:
			next(w, r.WithContext(clerkinvite.WithActor(r.Context(), claims.Subject)))
		}
	})
}

func respond(w http.ResponseWriter, r *http.Request, result any, err error) {
	if err != nil {
		slog.WarnContext(r.Context(), "request failed", "err", err) // the library's errors contain no address
		status, message := clerkinvite.HTTPError(err)               // 409, 422, 502, …
		http.Error(w, message, status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(result); err != nil {
		slog.WarnContext(r.Context(), "client disconnected", "err", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
