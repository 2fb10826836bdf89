package routers

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/clerkinvite/clerkinvite"
)

// chiRoutes returns the endpoints on chi. If isAdmin uses cookies, wrap the returned handler in
// http.NewCrossOriginProtection().Handler.
func chiRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	respond := func(w http.ResponseWriter, r *http.Request, status int, body any, err error) {
		if err != nil {
			status, body = failure(r.Context(), w.Header(), err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			slog.WarnContext(r.Context(), "client disconnected", "err", err)
		}
	}
	tenant := func(r *http.Request) string { return unescaped(r, chi.URLParam(r, "tenant")) }
	router := chi.NewRouter()
	router.Handle("/webhooks/clerk", svc.WebhookHandler(verifier)) // not behind the guard: the signature is its proof
	router.Route("/tenants/{tenant}/invitations", func(router chi.Router) {
		router.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !isAdmin(r, tenant(r)) {
					respond(w, r, 0, nil, errNoAdmin)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		router.Post("/", func(w http.ResponseWriter, r *http.Request) {
			body, err := readInvitation(r)
			if err != nil {
				respond(w, r, 0, nil, err)
				return
			}
			member, err := svc.Invite(r.Context(), body.params(tenant(r)))
			respond(w, r, http.StatusCreated, member, err)
		})
		router.Get("/", func(w http.ResponseWriter, r *http.Request) {
			list, err := svc.List(r.Context(), listParams(tenant(r), r))
			if err != nil {
				respond(w, r, 0, nil, err)
				return
			}
			respond(w, r, http.StatusOK, list, nil)
		})
	})
	return http.MaxBytesHandler(router, maxBody)
}
