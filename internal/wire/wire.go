// Package wire reads Clerk's JSON, in responses and in webhooks, by one rule: a field that is
// missing and a field of the wrong type are the same, and cost only themselves. Keys match
// exactly. If a key occurs twice, the last one is used, as in JavaScript and PostgreSQL.
// The fake writes such JSON in clerkinvitetest/wire.go.
package wire

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"time"
)

// Object is a JSON object whose fields have not been read.
type Object map[string]json.RawMessage

// Parse returns the fields of a JSON object, or nil if b is not a JSON object.
func Parse(b []byte) Object {
	var o Object
	if len(b) == 0 || json.Unmarshal(b, &o) != nil {
		return nil
	}
	return o
}

// Has reports whether the field exists and is not null.
func (o Object) Has(key string) bool {
	raw, ok := o[key]
	return ok && string(raw) != "null"
}

// Text returns a string, or "".
func (o Object) Text(key string) string { return read[string](o[key]) }

// Bool returns a bool, or false.
func (o Object) Bool(key string) bool { return read[bool](o[key]) }

// Int returns an integer, or 0.
func (o Object) Int(key string) int { return read[int](o[key]) }

// Object returns an object, or nil.
func (o Object) Object(key string) Object { return Parse(o[key]) }

// Map returns an object with all its values, or nil.
func (o Object) Map(key string) map[string]any { return read[map[string]any](o[key]) }

// List returns the elements of an array, or nil.
func (o Object) List(key string) []json.RawMessage { return List(o[key]) }

// List returns the elements of a JSON array, or nil if b is not a JSON array.
func List(b []byte) []json.RawMessage { return read[[]json.RawMessage](b) }

// read returns b as a T, or the zero value. A missing field costs no memory: json.Unmarshal
// would allocate a decoder and an error for it, which is much for a body with many empty objects.
func read[T any](b []byte) (v T) {
	if len(b) == 0 {
		return v
	}
	if err := json.Unmarshal(b, &v); err != nil {
		var zero T
		return zero
	}
	return v
}

// Time returns the time of a Unix timestamp, or the zero time. Clerk documents milliseconds,
// but its examples of webhooks have seconds. No time in milliseconds since March 1973 is below
// 1e11. A fraction is cut off.
func (o Object) Time(key string) time.Time {
	const year10000 = 253402300800000
	t := read[float64](o[key])
	if t > 0 && t < 1e11 {
		t *= 1000
	}
	if !(t > 0 && t < year10000) {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}

// Seconds returns a positive number of whole seconds, or 0.
func (o Object) Seconds(key string) time.Duration {
	n := o.Int(key)
	if n < 0 || int64(n) > math.MaxInt64/int64(time.Second) {
		return 0
	}
	return time.Duration(n) * time.Second
}

var id = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,254}$`)

// ID returns the field if it is a valid ID, or "". A valid ID is safe in a path and in a query.
// An ID with a leading "-" is not: GET /users would return all other users.
func (o Object) ID(key string) string {
	s := o.Text(key)
	if !ValidID(s) {
		return ""
	}
	return s
}

// ValidID reports whether s looks like a Clerk ID.
func ValidID(s string) bool { return id.MatchString(s) }

// User has the fields of a Clerk user that the library uses.
type User struct {
	ID             string
	PrimaryEmailID string
	Emails         []Email
	Incomplete     bool // the addresses, or one of them, or whether it is verified, could not be read
	Banned         bool
	Deprovisioned  bool
	Locked         bool
	LockEndsIn     time.Duration
	CreatedAt      time.Time
}

// Email is one address of a User.
type Email struct {
	ID       string
	Address  string
	Verified bool
}

// verificationStatuses are the documented ones.
var verificationStatuses = []string{"verified", "unverified", "failed", "expired", "transferable"}

// User reads a user, and reports whether it has a valid ID. Nothing else is required.
func (o Object) User() (User, bool) {
	u := User{
		ID: o.ID("id"), PrimaryEmailID: o.Text("primary_email_address_id"), CreatedAt: o.Time("created_at"),
		Banned: o.Bool("banned"), Deprovisioned: o.Bool("deprovisioned"), Locked: o.Bool("locked"),
		LockEndsIn: o.Seconds("lockout_expires_in_seconds"),
	}
	emails := o.List("email_addresses")
	u.Incomplete = emails == nil
	for _, raw := range emails {
		e := Parse(raw)
		address, status := e.Text("email_address"), e.Object("verification").Text("status")
		if address != "" {
			// Published examples have verified addresses that are reserved too.
			u.Emails = append(u.Emails, Email{e.Text("id"), address, status == "verified"})
		}
		readable := slices.Contains(verificationStatuses, status) || string(e["verification"]) == "null"
		u.Incomplete = u.Incomplete || address == "" || !readable
	}
	return u, u.ID != ""
}
