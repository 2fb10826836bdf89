// Signin lets only a tenant's admins invite and list people. It verifies Clerk's session tokens with
// Clerk's SDK.
//
// A tenant's first admin comes from the code that creates the tenant, or from the command "clerkinvite
// import". People who accept become active when Run reconciles, or immediately with webhooks.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	clerkhttp "github.com/clerk/clerk-sdk-go/v2/http"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkapi"
)

func main() {
	key := os.Getenv("CLERK_SECRET_KEY")
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	store := clerkinvite.NewPgxStore(pool, nil)
	if err := store.Migrate(context.Background()); err != nil {
		log.Fatal(err)
	}
	backend := clerk.BackendConfig{Key: &key}
	url := os.Getenv("CLERK_API_URL") // for tests, such as that of "clerkinvite fake"
	if url != "" {
		backend.URL = &url
	}
	api, err := clerkapi.New(key, &clerkapi.Options{BaseURL: url})
	if err != nil {
		log.Fatal(err)
	}
	invites, err := clerkinvite.New(clerkinvite.Config{API: api, Store: store, Logger: slog.Default()})
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = invites.Run(context.Background(), nil) }()

	keys := jwks.NewClient(&clerk.ClientConfig{BackendConfig: backend})
	server := &http.Server{
		Addr: ":8080", Handler: newHandler(invites, keys, os.Getenv("APP_ORIGIN")), // such as https://app.example.com
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

func newHandler(invites *clerkinvite.Service, keys *jwks.Client, origin string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /tenants/{tenant}/invitations", requireAdmin(invites, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Email string `json:"email"`
			Role  string `json:"role"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&body); err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		member, err := invites.Invite(r.Context(), clerkinvite.InviteParams{
			TenantID: r.PathValue("tenant"), Email: body.Email, Role: body.Role,
		})
		respond(w, r, member, err)
	}))
	mux.Handle("GET /tenants/{tenant}/members", requireAdmin(invites, func(w http.ResponseWriter, r *http.Request) {
		page, err := invites.List(r.Context(), clerkinvite.ListParams{
			TenantID: r.PathValue("tenant"), NewestFirst: true, Cursor: r.FormValue("cursor"),
		})
		respond(w, r, page, err)
	}))
	// Verifies the session token of the Authorization header. A request without one has no claims.
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
		slog.WarnContext(r.Context(), "request failed", "err", err)
		status, message := clerkinvite.HTTPError(err)
		http.Error(w, message, status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(result); err != nil {
		slog.WarnContext(r.Context(), "client disconnected", "err", err)
	}
}
