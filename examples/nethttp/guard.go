package main

import (
	"net"
	"net/http"
	"strings"
)

// guard says who makes a request and whether they may administer the tenant. Its error is the answer: one with a method
// HTTPStatus() int chooses the status, 401 and 403 for instance, and its text is shown.
type guard func(r *http.Request, tenant string) (admin string, err error)

// ownGuard is the place for your own sign-in. With Clerk it verifies the session token of the request, which the middleware
// WithHeaderAuthorization of the SDK's package http does around the pages (not around the webhooks), and then looks whether that
// user is an active member of the tenant, with a role that may invite. Pages and forms bring the token in the cookie __session and
// not in a header: say so with the options AuthorizationJWTExtractor, and AuthorizedPartyMatches with the origin of the pages.
//
//	claims, ok := clerk.SessionClaimsFromContext(r.Context())
//	if !ok {
//		return "", denied(http.StatusUnauthorized)
//	}
//	members, err := store.Find(r.Context(), clerkinvite.Query{UserIDs: []string{claims.Subject}})
//	if err != nil {
//		return "", err
//	}
//	for _, m := range members {
//		if m.TenantID == tenant && m.Role == "admin" {
//			return claims.Subject, nil
//		}
//	}
//	return "", denied(http.StatusForbidden)
//
// While it is nil, the program runs with the demo's sign-in only.
var ownGuard guard

// demoGuard lets everybody in.
func demoGuard(*http.Request, string) (string, error) { return "demo_admin", nil }

// denied is a guard's refusal: the status of the answer.
type denied int

func (d denied) Error() string {
	if d == http.StatusUnauthorized {
		return "sign in first"
	}
	return "you do not administer this tenant"
}

// HTTPStatus is what clerkinvite.HTTPError asks for.
func (d denied) HTTPStatus() int { return int(d) }

// onlyByName refuses requests that name another host than this one. Where nobody signs in, a page of somebody else's could
// otherwise point its own name at 127.0.0.1 and be of the same origin.
func onlyByName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.Host) {
			http.Error(w, "with the demo sign-in this is reached as localhost only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyDirect refuses requests that came through a proxy, as far as they say so. Where nobody signs in and Clerk is the real one,
// what leads Clerk's webhooks here must not lead strangers to the pages.
func onlyDirect(next http.Handler, deny func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxied := !r.ProtoAtLeast(1, 1) // as no browser speaks, but proxies that add nothing to the header
		for name := range r.Header {
			switch name {
			case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip":
				proxied = true
			default:
				proxied = proxied || strings.HasPrefix(name, "X-Forwarded")
			}
		}
		if proxied {
			deny(w, r, refusal{http.StatusForbidden, "with the demo sign-in and the real Clerk, nobody is let in through a proxy: let it lead to /webhooks/clerk only"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// loopback reports whether host, with a port or without, is this machine as seen by itself.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(host)
	return host == "localhost" || host == "[::1]" || ip != nil && ip.IsLoopback()
}
