// Package mocks tests a host's code with testify, gomock and moq. Each mocks the interface that the host declares.
package mocks

import (
	"context"
	"errors"

	"github.com/clerkinvite/clerkinvite"
)

//go:generate go run go.uber.org/mock/mockgen@v0.6.0 -source=inviter.go -destination=gomock_test.go -package=mocks -write_package_comment=false
//go:generate go run github.com/matryer/moq@v0.5.3 -out moq_test.go . Inviter:MoqInviter

// Inviter is what Onboard needs of a *clerkinvite.Service.
type Inviter interface {
	Invite(ctx context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error)
}

// Onboard is the host's code under test. It invites a person, or returns the status of the member that the
// tenant has already.
func Onboard(ctx context.Context, invites Inviter, email string) (clerkinvite.Status, error) {
	m, err := invites.Invite(ctx, clerkinvite.InviteParams{TenantID: "acme", Email: email})
	var dup *clerkinvite.DuplicateEmailError
	if errors.As(err, &dup) {
		return dup.Member.Status, nil
	}
	if err != nil {
		return "", err
	}
	return m.Status, nil
}
