package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/invitation"
	"github.com/clerk/clerk-sdk-go/v2/user"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// byHandTable is what the flow written by hand needs: one row per address and tenant,
// found by the address and by the user.
const byHandTable = `
CREATE TABLE team_member (
	id            uuid        PRIMARY KEY,
	tenant_id     text        NOT NULL,
	email         text        NOT NULL,
	status        text        NOT NULL,
	clerk_user_id text        NOT NULL,
	role          text        NOT NULL,
	created_at    timestamptz NOT NULL,
	UNIQUE (tenant_id, email)
);
CREATE INDEX ON team_member (email);
CREATE INDEX ON team_member (clerk_user_id)`

// byHand is that flow with Clerk's SDK: find the user, invite, insert. It writes nothing
// before it calls Clerk, so a crash in between leaves an invitation that no row knows.
type byHand struct {
	pool        *pgxpool.Pool
	users       *user.Client
	invitations *invitation.Client
}

func newByHand(pool *pgxpool.Pool, f *fake) *byHand {
	config := &clerk.ClientConfig{BackendConfig: clerk.BackendConfig{
		HTTPClient: &http.Client{Transport: f.transport}, URL: clerk.String(f.URL + "/v1"), Key: clerk.String(secretKey),
	}}
	return &byHand{pool, user.NewClient(config), invitation.NewClient(config)}
}

var errByHandDuplicate = errors.New("already a member")

// invite invites one person.
func (b *byHand) invite(ctx context.Context, email string) error {
	email = strings.ToLower(strings.TrimSpace(email))
	found, err := b.users.List(ctx, &user.ListParams{EmailAddresses: []string{email}})
	if err != nil {
		return fmt.Errorf("find the user: %w", err)
	}
	status, userID := "pending", ""
	for _, u := range found.Users {
		for _, e := range u.EmailAddresses {
			if e.EmailAddress == email && e.Verification != nil && e.Verification.Status == "verified" {
				status, userID = "active", u.ID
			}
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	var invited *clerk.Invitation
	if userID == "" {
		metadata, err := json.Marshal(map[string]string{"tenant_id": tenant, "member_id": id.String()})
		if err != nil {
			return err
		}
		raw := json.RawMessage(metadata)
		invited, err = b.invitations.Create(ctx, &invitation.CreateParams{EmailAddress: email, PublicMetadata: &raw})
		if err != nil {
			return fmt.Errorf("create the invitation: %w", err)
		}
		userID = "pending_" + invited.ID
	}
	_, err = b.pool.Exec(ctx, `
INSERT INTO team_member (id, tenant_id, email, status, clerk_user_id, role, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		id.String(), tenant, email, status, userID, role, time.Now())
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "23505" {
		if invited != nil {
			if _, err := b.invitations.Revoke(ctx, invited.ID); err != nil {
				return fmt.Errorf("revoke the invitation: %w", err)
			}
		}
		return errByHandDuplicate
	}
	return err
}
