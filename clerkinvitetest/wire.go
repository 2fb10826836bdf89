package clerkinvitetest

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"github.com/clerkinvite/clerkinvite"
)

// The types below write Clerk's JSON, as the fake sends it. internal/wire reads Clerk's JSON.

// wireInvitation is Clerk's invitation object.
type wireInvitation struct {
	Object         string                       `json:"object"`
	ID             string                       `json:"id"`
	EmailAddress   string                       `json:"email_address"`
	PublicMetadata json.RawMessage              `json:"public_metadata"`
	Revoked        bool                         `json:"revoked"`
	Status         clerkinvite.InvitationStatus `json:"status"`
	URL            string                       `json:"url,omitempty"`
	ExpiresAt      *int64                       `json:"expires_at,omitempty"`
	CreatedAt      int64                        `json:"created_at"`
	UpdatedAt      int64                        `json:"updated_at"`
}

func (c *Clerk) wireInvitation(i *invitation, now time.Time) wireInvitation {
	w := wireInvitation{
		Object: "invitation", ID: i.id, EmailAddress: i.email, PublicMetadata: i.metadata, Status: i.statusAt(now), URL: i.url,
		Revoked:   i.status == clerkinvite.InvitationRevoked,
		CreatedAt: i.createdAt.UnixMilli(), UpdatedAt: i.updatedAt.UnixMilli(),
	}
	if c.behavior.NoURL {
		w.URL = ""
	}
	if !c.behavior.NoExpiresAt {
		at := i.expiresAt.UnixMilli()
		w.ExpiresAt = &at
	}
	return w
}

// invitation returns w as the real adapter does.
func (w wireInvitation) invitation() clerkinvite.Invitation {
	i := clerkinvite.Invitation{
		ID: w.ID, Email: w.EmailAddress, Status: w.Status, URL: clerkinvite.NewSecret(w.URL),
		PublicMetadata: slices.Clone(w.PublicMetadata), CreatedAt: time.UnixMilli(w.CreatedAt).UTC(),
	}
	if w.ExpiresAt != nil {
		at := time.UnixMilli(*w.ExpiresAt).UTC()
		i.ExpiresAt = &at
	}
	return i
}

func (c *Clerk) wireInvitations(page []invitation, now time.Time) []wireInvitation {
	out := make([]wireInvitation, 0, len(page))
	for _, i := range page {
		out = append(out, c.wireInvitation(&i, now))
	}
	return out
}

// invitations returns the invitations in a response.
func invitations(a response) []clerkinvite.Invitation {
	out := []clerkinvite.Invitation{}
	switch list := a.value.(type) {
	case []wireInvitation:
		for _, w := range list {
			out = append(out, w.invitation())
		}
	case wireList[wireOrganizationInvitation]:
		for _, w := range list.Data {
			out = append(out, w.invitation())
		}
	}
	return out
}

// wireUser is Clerk's user object, with all required fields.
type wireUser struct {
	Object                string          `json:"object"`
	ID                    string          `json:"id"`
	ExternalID            *string         `json:"external_id"`
	PrimaryEmailAddressID *string         `json:"primary_email_address_id"`
	PrimaryPhoneNumberID  *string         `json:"primary_phone_number_id"`
	PrimaryWeb3WalletID   *string         `json:"primary_web3_wallet_id"`
	Username              *string         `json:"username"`
	FirstName             *string         `json:"first_name"`
	LastName              *string         `json:"last_name"`
	HasImage              bool            `json:"has_image"`
	PublicMetadata        json.RawMessage `json:"public_metadata"`
	PrivateMetadata       json.RawMessage `json:"private_metadata"`
	UnsafeMetadata        json.RawMessage `json:"unsafe_metadata"`
	EmailAddresses        []wireEmail     `json:"email_addresses"`
	PhoneNumbers          []struct{}      `json:"phone_numbers"`
	Web3Wallets           []struct{}      `json:"web3_wallets"`
	Passkeys              []struct{}      `json:"passkeys"`
	ExternalAccounts      []struct{}      `json:"external_accounts"`
	SAMLAccounts          []struct{}      `json:"saml_accounts"`
	EnterpriseAccounts    []struct{}      `json:"enterprise_accounts"`
	PasswordEnabled       bool            `json:"password_enabled"`
	TwoFactorEnabled      bool            `json:"two_factor_enabled"`
	TOTPEnabled           bool            `json:"totp_enabled"`
	BackupCodeEnabled     bool            `json:"backup_code_enabled"`
	MFAEnabledAt          *int64          `json:"mfa_enabled_at"`
	MFADisabledAt         *int64          `json:"mfa_disabled_at"`
	LastSignInAt          *int64          `json:"last_sign_in_at"`
	Banned                bool            `json:"banned"`
	Deprovisioned         bool            `json:"deprovisioned"`
	Locked                bool            `json:"locked"`
	LockoutExpiresIn      *int64          `json:"lockout_expires_in_seconds"`
	VerificationAttempts  *int64          `json:"verification_attempts_remaining"`
	DeleteSelfEnabled     bool            `json:"delete_self_enabled"`
	CreateOrganization    bool            `json:"create_organization_enabled"`
	LastActiveAt          *int64          `json:"last_active_at"`
	LegalAcceptedAt       *int64          `json:"legal_accepted_at"`
	CreatedAt             int64           `json:"created_at"`
	UpdatedAt             int64           `json:"updated_at"`
}

type wireEmail struct {
	Object       string            `json:"object"`
	ID           string            `json:"id"`
	EmailAddress string            `json:"email_address"`
	Reserved     bool              `json:"reserved"`
	Verification *wireVerification `json:"verification"`
	LinkedTo     []struct{}        `json:"linked_to"`
	CreatedAt    int64             `json:"created_at"`
	UpdatedAt    int64             `json:"updated_at"`
}

type wireVerification struct {
	Object   string `json:"object"`
	Status   string `json:"status"`
	Strategy string `json:"strategy"`
	Attempts *int   `json:"attempts"`
	ExpireAt *int64 `json:"expire_at"`
}

func (u *user) wire(now time.Time) wireUser {
	none := []struct{}{}
	w := wireUser{
		Object: "user", ID: u.id, PublicMetadata: u.metadata, PrivateMetadata: json.RawMessage("{}"), UnsafeMetadata: json.RawMessage("{}"),
		EmailAddresses: []wireEmail{}, PhoneNumbers: none, Web3Wallets: none, Passkeys: none,
		ExternalAccounts: none, SAMLAccounts: none, EnterpriseAccounts: none,
		Banned: u.account.banned, Deprovisioned: u.account.deprovisioned, Locked: u.account.lockedAt(now),
		DeleteSelfEnabled: true, CreatedAt: u.createdAt.UnixMilli(), UpdatedAt: u.updatedAt.UnixMilli(),
	}
	if w.Locked && !u.account.unlockedAt.IsZero() {
		seconds := int64(math.Ceil(u.account.unlockedAt.Sub(now).Seconds()))
		w.LockoutExpiresIn = &seconds
	}
	if u.primary != "" {
		w.PrimaryEmailAddressID = &u.primary
	}
	for _, e := range u.emails {
		we := wireEmail{
			Object: "email_address", ID: e.id, EmailAddress: e.Address, Reserved: e.Reserved, LinkedTo: none,
			CreatedAt: e.createdAt.UnixMilli(), UpdatedAt: e.createdAt.UnixMilli(),
		}
		if !e.NullVerification {
			v := &wireVerification{Object: "verification_otp", Status: "unverified", Strategy: "email_code"}
			if e.ticket {
				v.Object, v.Strategy = "verification_ticket", "ticket"
			}
			if e.Verified {
				v.Status = "verified"
			}
			we.Verification = v
		}
		w.EmailAddresses = append(w.EmailAddresses, we)
	}
	return w
}

// user returns w as the real adapter does.
func (w wireUser) user() clerkinvite.User {
	u := clerkinvite.User{
		ID: w.ID, Banned: w.Banned, Deprovisioned: w.Deprovisioned, Locked: w.Locked, CreatedAt: time.UnixMilli(w.CreatedAt).UTC(),
	}
	if w.LockoutExpiresIn != nil {
		u.LockEndsIn = time.Duration(*w.LockoutExpiresIn) * time.Second
	}
	if w.PrimaryEmailAddressID != nil {
		u.PrimaryEmailID = *w.PrimaryEmailAddressID
	}
	for _, e := range w.EmailAddresses {
		u.Emails = append(u.Emails, clerkinvite.UserEmail{
			ID: e.ID, Address: e.EmailAddress,
			Verified: e.Verification != nil && e.Verification.Status == "verified",
		})
	}
	return u
}
