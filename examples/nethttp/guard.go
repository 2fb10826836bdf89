package main

import (
	"net"
	"net/http"
	"strings"
)

// guard returns the admin who makes a request, or an error if they may not administer the tenant. If the error has a method
// HTTPStatus() int, its status (such as 401 or 403) and text are the response.
type guard func(r *http.Request, tenant string) (admin string, err error)

// ownGuard is your own sign-in. With Clerk, wrap the pages (not the webhooks) in the middleware WithHeaderAuthorization of the SDK's
// package http, which verifies the session token. Then check that the user is an active member of the tenant, with a role that may
// invite. Pages and forms send the token in the cookie __session instead of a header. So use the option AuthorizationJWTExtractor, and
// AuthorizedPartyMatches with the origin of the pages.
//
//	claims, ok := clerk.SessionClaimsFromContext(r.Context())
//	if !ok {
//		return "", denied(http.StatusUnauthorized)
//	}
//	m, err := invites.Get(r.Context(), clerkinvite.Ref{TenantID: tenant, ClerkUserID: claims.Subject})
//	if errors.Is(err, clerkinvite.ErrNotFound) || err == nil && (m.Status != clerkinvite.StatusActive || m.Role != "admin") {
//		return "", denied(http.StatusForbidden)
//	}
//	return claims.Subject, err
//
// While it is nil, the program needs the demo sign-in.
var ownGuard guard

// demoGuard lets everyone in.
func demoGuard(*http.Request, string) (string, error) { return "demo_admin", nil }

// denied is the HTTP status of a guard's refusal.
type denied int

func (d denied) Error() string {
	if d == http.StatusUnauthorized {
		return "sign in first"
	}
	return "you are not an admin of this tenant"
}

// HTTPStatus returns the status, for clerkinvite.HTTPError.
func (d denied) HTTPStatus() int { return int(d) }

// onlyByName rejects requests for other host names. Without a sign-in, another site could otherwise point its name at 127.0.0.1 and
// be of the same origin.
func onlyByName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			http.Error(w, "with the demo sign-in, use localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyDirect rejects requests that came through a proxy, if their headers show it. Without a sign-in and with the real Clerk, a proxy
// for webhooks must not open the pages to strangers.
func onlyDirect(next http.Handler, deny func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied := !r.ProtoAtLeast(1, 1) // no browser uses it, but some proxies do
		for name := range r.Header {
			switch name {
			case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip":
				proxied = true
			default:
				proxied = proxied || strings.HasPrefix(name, "X-Forwarded")
			}
		}
		if proxied {
			deny(w, r, refusal{http.StatusForbidden, "with the demo sign-in and the real Clerk, a proxy may pass requests for /webhooks/clerk only"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopback reports whether host, with or without a port, is a loopback address or localhost.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || host == "[::1]" || ip != nil && ip.IsLoopback()
}
