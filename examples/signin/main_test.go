package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/jwks"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/clerkinvitetest"
)

const origin = "https://app.example.com"

// issuer signs session tokens like a Clerk instance, and serves its public key.
type issuer struct {
	key   *rsa.PrivateKey
	keyID string
	keys  *jwks.Client
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	i := &issuer{key: key, keyID: "ins_" + t.Name()} // the SDK caches keys by their ID
	secret := "sk_test_1"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/jwks" || r.Header.Get("Authorization") != "Bearer "+secret {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": i.keyID,
			"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
		}}})
	}))
	t.Cleanup(server.Close)
	url := server.URL + "/v1"
	i.keys = jwks.NewClient(&clerk.ClientConfig{BackendConfig: clerk.BackendConfig{Key: &secret, URL: &url}})
	return i
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encodeJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return encode(b)
}

// token returns the session token of a user, after spoil has changed its header and claims.
func (i *issuer) token(t *testing.T, userID string, spoil func(header, claims map[string]any)) string {
	t.Helper()
	header := map[string]any{"alg": "RS256", "typ": "JWT", "kid": i.keyID}
	now := time.Now()
	claims := map[string]any{
		"sub": userID, "sid": "sess_1", "iss": "https://clerk.example.com", "azp": origin,
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Second).Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	if spoil != nil {
		spoil(header, claims)
	}
	signed := encodeJSON(t, header) + "." + encodeJSON(t, claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	require.NoError(t, err)
	return signed + "." + encode(signature)
}

// host is the program with a fake Clerk, and one user for each kind of member of the tenant acme.
type host struct {
	*issuer
	http.Handler
	invites *clerkinvite.Service
	users   map[string]string // user IDs
}

func newHost(t *testing.T) *host {
	t.Helper()
	api := clerkinvitetest.NewClerk()
	invites, err := clerkinvite.New(clerkinvite.Config{API: api, Store: clerkinvitetest.NewMemoryStore()})
	require.NoError(t, err)
	webhooks, err := clerkinvite.NewWebhookVerifier(clerkinvite.WebhookConfig{Secrets: []clerkinvite.Secret{clerkinvite.NewSecret(clerkinvitetest.WebhookSecret)}})
	require.NoError(t, err)
	i := newIssuer(t)
	h := &host{i, newHandler(invites, webhooks, i.keys, origin), invites, make(map[string]string)}
	for name, p := range map[string]clerkinvite.InviteParams{
		"admin":    {TenantID: "acme", Role: "admin"},
		"viewer":   {TenantID: "acme", Role: "viewer"},
		"removed":  {TenantID: "acme", Role: "admin"},
		"stranger": {TenantID: "globex", Role: "admin"},
	} {
		p.Email = name + "@example.com"
		h.users[name] = api.AddVerifiedUser(p.Email).ID
		_, err := invites.Invite(t.Context(), p)
		require.NoError(t, err)
	}
	_, err = invites.Remove(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "removed@example.com"})
	require.NoError(t, err)
	pending, err := invites.Invite(t.Context(), clerkinvite.InviteParams{TenantID: "acme", Email: "pending@example.com", Role: "admin"})
	require.NoError(t, err)
	h.users["pending"] = pending.ClerkUserID
	h.users["outsider"] = api.AddVerifiedUser("outsider@example.com").ID
	return h
}

func (h *host) send(t *testing.T, method, path, body, token string) (status int, text string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Body)
	require.NoError(t, err)
	return w.Code, string(b)
}

func TestAdminInvitesAndLists(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, name := range []string{"first", "second"} {
		status, text := h.send(t, "POST", "/tenants/acme/invitations", "email="+name+"@example.com&role=viewer", h.token(t, h.users["admin"], nil))
		require.Equal(t, 200, status, text)
	}
	status, text := h.send(t, "GET", "/tenants/acme/members", "", h.token(t, h.users["admin"], nil))
	require.Equal(t, 200, status)
	var page clerkinvite.Page
	require.NoError(t, json.Unmarshal([]byte(text), &page))
	require.Equal(t, "second@example.com", page.Members[0].Email)
	require.Equal(t, "first@example.com", page.Members[1].Email)
	require.Equal(t, h.users["admin"], page.Members[0].ChangedBy)

	status, text = h.send(t, "POST", "/tenants/acme/invitations", "email=first@example.com", h.token(t, h.users["admin"], nil))
	require.Equal(t, 409, status, text)
}

func TestOnlyActiveAdminsOfTheTenant(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, name := range []string{"viewer", "removed", "stranger", "pending", "outsider"} {
		for _, path := range []string{"POST /tenants/acme/invitations", "GET /tenants/acme/members"} {
			method, path, _ := strings.Cut(path, " ")
			status, text := h.send(t, method, path, "email=new@example.com", h.token(t, h.users[name], nil))
			require.Equal(t, 403, status, name)
			require.Equal(t, "you are not an admin of this tenant\n", text)
		}
	}
	status, _ := h.send(t, "GET", "/tenants/globex/members", "", h.token(t, h.users["admin"], nil))
	require.Equal(t, 403, status)
	_, err := h.invites.Get(t.Context(), clerkinvite.Ref{TenantID: "acme", Email: "new@example.com"})
	require.ErrorIs(t, err, clerkinvite.ErrNotFound)
}

func TestOnlyValidTokens(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	admin, thief := h.users["admin"], newIssuer(t)
	good := h.token(t, admin, nil)
	head, claims, _ := strings.Cut(good, ".")
	for name, token := range map[string]string{
		"none":                           "",
		"garbage":                        "x.y.z",
		"expired":                        h.token(t, admin, func(_, claims map[string]any) { claims["exp"] = time.Now().Add(-time.Minute).Unix() }),
		"not valid yet":                  h.token(t, admin, func(_, claims map[string]any) { claims["nbf"] = time.Now().Add(time.Hour).Unix() }),
		"another key":                    thief.token(t, admin, func(header, _ map[string]any) { header["kid"] = h.keyID }),
		"a key that Clerk does not have": thief.token(t, admin, func(header, _ map[string]any) { header["kid"] = "unknown" }),
		"another origin":                 h.token(t, admin, func(_, claims map[string]any) { claims["azp"] = "https://evil.example.com" }),
		"another issuer":                 h.token(t, admin, func(_, claims map[string]any) { claims["iss"] = "https://evil.example.com" }),
		"without a signature":            encodeJSON(t, map[string]any{"alg": "none", "kid": h.keyID}) + "." + strings.Split(claims, ".")[0] + ".",
		"the claims of another token":    head + "." + encodeJSON(t, map[string]any{"sub": admin}) + "." + strings.Split(claims, ".")[1],
	} {
		status, _ := h.send(t, "GET", "/tenants/acme/members", "", token)
		require.Equal(t, 401, status, name)
	}
	status, _ := h.send(t, "GET", "/tenants/acme/members", "", good)
	require.Equal(t, 200, status)
}

// The README shows a part of this program.
func TestReadmeShowsThisProgram(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(string(readme))
	require.NotNil(t, block)
	for _, shown := range []string{"func main()", "func newHandler(", "func requireAdmin("} {
		require.Contains(t, block[1], shown)
	}
	require.Contains(t, string(program), block[1])
}
