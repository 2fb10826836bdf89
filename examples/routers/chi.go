package routers

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/clerkinvite/clerkinvite"
)

// begin snippet

// chiRoutes returns the endpoints on chi, whose handlers are those of net/http.
func chiRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	answer := func(w http.ResponseWriter, r *http.Request, status int, body any, err error) {
		if err != nil {
			status, body = failure(r.Context(), w.Header(), err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			slog.WarnContext(r.Context(), "the client has gone", "err", err)
		}
	}
	router := chi.NewRouter()
	router.Handle("/webhooks/clerk", svc.WebhookHandler(verifier)) // not behind the guard: the signature is its proof
	router.Route("/tenants/{tenant}/invitations", func(router chi.Router) {
		router.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !isAdmin(r, chi.URLParam(r, "tenant")) {
					answer(w, r, 0, nil, errNoAdmin)
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		router.Post("/", func(w http.ResponseWriter, r *http.Request) {
			var body invitation
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				answer(w, r, 0, nil, unreadable(err))
				return
			}
			member, err := svc.Invite(r.Context(), body.params(chi.URLParam(r, "tenant")))
			answer(w, r, http.StatusCreated, member, err)
		})
		router.Get("/", func(w http.ResponseWriter, r *http.Request) {
			list, err := svc.List(r.Context(), listParams(chi.URLParam(r, "tenant"), r))
			if err != nil {
				answer(w, r, 0, nil, err)
				return
			}
			answer(w, r, http.StatusOK, page{list.Members, list.Next}, nil)
		})
	})
	return http.MaxBytesHandler(router, maxBody)
}

// end snippet
