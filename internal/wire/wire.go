// Package wire has the parts of Clerk's JSON that responses and webhooks share.
package wire

import "time"

// User is Clerk's user object. It has only the fields that the library uses, so that an
// unexpected value in one of the fifty others does no harm.
type User struct {
	ID             string  `json:"id"`
	PrimaryEmailID string  `json:"primary_email_address_id"`
	Emails         []Email `json:"email_addresses"`
	Banned         bool    `json:"banned"`
	CreatedAt      Time    `json:"created_at"`
}

// Email is one address of a User. Clerk's verification can be null.
type Email struct {
	ID           string `json:"id"`
	Address      string `json:"email_address"`
	Verification struct {
		Status string `json:"status"`
	} `json:"verification"`
}

// Verified reports whether Clerk says that the user has verified the address. Clerk's published
// examples have verified addresses that are reserved, too, so reserved says nothing about it.
func (e Email) Verified() bool { return e.Verification.Status == "verified" }

// Time is a Unix time. It is a float so that a fraction does not make the whole object unreadable.
type Time float64

// UTC returns the zero time for a time that is missing or impossible. Clerk documents
// milliseconds, but its examples of webhooks have seconds. No time in milliseconds since
// March 1973 is below 1e11.
func (t Time) UTC() time.Time {
	const year10000 = 253402300800000
	if t > 0 && t < 1e11 {
		t *= 1000
	}
	if t <= 0 || t >= year10000 {
		return time.Time{}
	}
	return time.UnixMilli(int64(t)).UTC()
}
