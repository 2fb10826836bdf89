package clerkinvitetest

import (
	"context"
	"errors"

	"github.com/clerkinvite/clerkinvite"
)

// ClerkFuncs is a [clerkinvite.ClerkAPI] and [clerkinvite.OrganizationAPI] made of functions, for
// tests that need a few fixed responses. A method whose function is nil returns an error that names
// the missing field.
// ClerkFuncs is safe for concurrent use if its functions are.
type ClerkFuncs struct {
	FindUsersFunc         func(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error)
	GetUserFunc           func(ctx context.Context, id string) (*clerkinvite.User, error)
	CreateInvitationFunc  func(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error)
	CreateInvitationsFunc func(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error)
	ListInvitationsFunc   func(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error)
	RevokeInvitationFunc  func(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error)

	FindMembershipsFunc func(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error)
	AddMemberFunc       func(ctx context.Context, m clerkinvite.Membership) error
	RemoveMemberFunc    func(ctx context.Context, m clerkinvite.Membership) error
}

var (
	_ clerkinvite.ClerkAPI        = ClerkFuncs{}
	_ clerkinvite.OrganizationAPI = ClerkFuncs{}
)

// FindUsers implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) FindUsers(ctx context.Context, q clerkinvite.UserQuery) ([]clerkinvite.User, error) {
	if f.FindUsersFunc == nil {
		return nil, unexpected("FindUsers")
	}
	return f.FindUsersFunc(ctx, q)
}

// GetUser implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) GetUser(ctx context.Context, id string) (*clerkinvite.User, error) {
	if f.GetUserFunc == nil {
		return nil, unexpected("GetUser")
	}
	return f.GetUserFunc(ctx, id)
}

// CreateInvitation implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) CreateInvitation(ctx context.Context, r clerkinvite.InvitationRequest) (*clerkinvite.Invitation, error) {
	if f.CreateInvitationFunc == nil {
		return nil, unexpected("CreateInvitation")
	}
	return f.CreateInvitationFunc(ctx, r)
}

// CreateInvitations implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) CreateInvitations(ctx context.Context, rs []clerkinvite.InvitationRequest) ([]clerkinvite.Invitation, error) {
	if f.CreateInvitationsFunc == nil {
		return nil, unexpected("CreateInvitations")
	}
	return f.CreateInvitationsFunc(ctx, rs)
}

// ListInvitations implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) ListInvitations(ctx context.Context, q clerkinvite.InvitationQuery) ([]clerkinvite.Invitation, error) {
	if f.ListInvitationsFunc == nil {
		return nil, unexpected("ListInvitations")
	}
	return f.ListInvitationsFunc(ctx, q)
}

// RevokeInvitation implements [clerkinvite.ClerkAPI].
func (f ClerkFuncs) RevokeInvitation(ctx context.Context, r clerkinvite.RevokeRequest) (*clerkinvite.Invitation, error) {
	if f.RevokeInvitationFunc == nil {
		return nil, unexpected("RevokeInvitation")
	}
	return f.RevokeInvitationFunc(ctx, r)
}

// FindMemberships implements [clerkinvite.OrganizationAPI].
func (f ClerkFuncs) FindMemberships(ctx context.Context, q clerkinvite.MembershipQuery) ([]clerkinvite.Membership, error) {
	if f.FindMembershipsFunc == nil {
		return nil, unexpected("FindMemberships")
	}
	return f.FindMembershipsFunc(ctx, q)
}

// AddMember implements [clerkinvite.OrganizationAPI].
func (f ClerkFuncs) AddMember(ctx context.Context, m clerkinvite.Membership) error {
	if f.AddMemberFunc == nil {
		return unexpected("AddMember")
	}
	return f.AddMemberFunc(ctx, m)
}

// RemoveMember implements [clerkinvite.OrganizationAPI].
func (f ClerkFuncs) RemoveMember(ctx context.Context, m clerkinvite.Membership) error {
	if f.RemoveMemberFunc == nil {
		return unexpected("RemoveMember")
	}
	return f.RemoveMemberFunc(ctx, m)
}

func unexpected(method string) error {
	return errors.New("clerkinvitetest: unexpected call of " + method + ": ClerkFuncs." + method + "Func is nil")
}
