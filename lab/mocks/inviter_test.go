package mocks

import (
	"context"
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.uber.org/mock/gomock"

	"github.com/clerkinvite/clerkinvite"
)

var (
	_ Inviter = (*clerkinvite.Service)(nil)

	ada       = clerkinvite.InviteParams{TenantID: "acme", Email: "ada@example.com"}
	duplicate = &clerkinvite.DuplicateEmailError{
		Ref:    clerkinvite.Ref{TenantID: ada.TenantID, Email: ada.Email},
		Member: &clerkinvite.Member{Status: clerkinvite.StatusActive},
	}
)

// testifyInviter is a mock of Inviter, written by hand.
type testifyInviter struct{ mock.Mock }

func (m *testifyInviter) Invite(ctx context.Context, p clerkinvite.InviteParams) (*clerkinvite.Member, error) {
	args := m.Called(ctx, p)
	member, _ := args.Get(0).(*clerkinvite.Member)
	return member, args.Error(1)
}

func TestTestify(t *testing.T) {
	t.Parallel()
	invites := &testifyInviter{}
	invites.On("Invite", mock.Anything, ada).Return(nil, duplicate).Once()
	status, err := Onboard(t.Context(), invites, ada.Email)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, status)
	invites.AssertExpectations(t)
}

func TestGomock(t *testing.T) {
	t.Parallel()
	invites := NewMockInviter(gomock.NewController(t))
	invites.EXPECT().Invite(gomock.Any(), ada).Return(nil, duplicate)
	status, err := Onboard(t.Context(), invites, ada.Email)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, status)
}

func TestMoq(t *testing.T) {
	t.Parallel()
	invites := &MoqInviter{InviteFunc: func(context.Context, clerkinvite.InviteParams) (*clerkinvite.Member, error) {
		return nil, duplicate
	}}
	status, err := Onboard(t.Context(), invites, ada.Email)
	require.NoError(t, err)
	require.Equal(t, clerkinvite.StatusActive, status)
	require.Len(t, invites.InviteCalls(), 1)
	require.Equal(t, ada, invites.InviteCalls()[0].P)
}
