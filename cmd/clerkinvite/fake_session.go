package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"time"
)

// sessionLifetime is long enough to try an application by hand. Clerk's tokens expire after a minute.
const sessionLifetime = time.Hour

// fakeOrigin is the origin of the page on which the users of the fake sign in.
const fakeOrigin = "http://localhost:3000"

// sessions signs session tokens for the users of the fake, as Clerk does at sign-in.
type sessions struct {
	key   *rsa.PrivateKey
	keyID string // differs in every run, because Clerk's SDK caches keys by their ID
}

func newSessions() (*sessions, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return &sessions{key, "ins_" + rand.Text()}, err
}

// serveKeys is Clerk's GET /v1/jwks.
func (s *sessions) serveKeys(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+fakeKey {
		http.Error(w, "wrong secret key", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(w).Encode(map[string][]map[string]string{"keys": {{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": s.keyID,
		"n": encode(s.key.N.Bytes()), "e": encode(big.NewInt(int64(s.key.E)).Bytes()),
	}}})
	if err != nil {
		return // the client has gone
	}
}

// token returns a session token of the user.
func (s *sessions) token(userID string, now time.Time) (string, error) {
	header, err := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": s.keyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"sub": userID, "sid": "sess_fake", "iss": "https://clerk.example.com", "azp": fakeOrigin,
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Second).Unix(), "exp": now.Add(sessionLifetime).Unix(),
	})
	if err != nil {
		return "", err
	}
	signed := encode(header) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	return signed + "." + encode(signature), err
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
