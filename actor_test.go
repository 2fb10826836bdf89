package clerkinvite_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite"
	"github.com/clerkinvite/clerkinvite/internal/testkit"
)

func TestActorOfEachChange(t *testing.T) {
	t.Parallel()
	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		by := func(id string) context.Context { return clerkinvite.WithActor(t.Context(), id) }
		p := testkit.Params("acme", "ada@example.com")
		p.Role = "viewer"
		m, err := b.Invite(by("boss"), p)
		require.NoError(t, err)
		require.Equal(t, "boss", m.ChangedBy)
		require.Empty(t, m.InvitedBy, "the host sets it itself")

		editor, data := "editor", json.RawMessage(`{"seat":2}`)
		m, err = b.Update(by("admin"), testkit.Ada, clerkinvite.MemberUpdate{Role: &editor})
		require.NoError(t, err)
		require.Equal(t, "admin", m.ChangedBy)
		for range 2 { // neither is recorded
			m, err = b.Update(by("somebody"), testkit.Ada, clerkinvite.MemberUpdate{Role: &editor, Data: &data})
			require.NoError(t, err)
			require.Equal(t, "admin", m.ChangedBy)
		}
		b.Clock.Advance(time.Hour)
		m, err = b.Resend(clerkinvite.WithActor(by("boss"), ""), testkit.Ada)
		require.NoError(t, err)
		require.Empty(t, m.ChangedBy)
		m, err = b.Remove(by("boss"), testkit.Ada)
		require.NoError(t, err)
		require.Equal(t, "boss", m.ChangedBy)

		// The claim of a delivery by the library keeps the actor; its result does not.
		m, err = b.Reserve(by("Ünï's \"job\""), p)
		require.NoError(t, err)
		require.Equal(t, "Ünï's \"job\"", m.ChangedBy)
		_, err = b.Deliver(t.Context(), nil)
		require.NoError(t, err)

		moves, err := b.History(t.Context(), testkit.Ada)
		require.NoError(t, err)
		var got []string
		for _, m := range moves {
			got = append(got, fmt.Sprintf("%s>%s %s by %s", m.From, m.To, m.Role, m.Actor))
		}
		require.Equal(t, []string{
			">reserved viewer by boss", "reserved>pending viewer by boss", "pending>pending editor by admin",
			"pending>pending editor by ", "pending>pending editor by ", "pending>removed editor by boss",
			"removed>reserved viewer by Ünï's \"job\"", "reserved>pending viewer by ",
		}, got)
	})
}

// A batch of many and a batch in the host's transaction have the actor, too.
func TestActorOfMany(t *testing.T) {
	t.Parallel()
	b := testkit.NewPostgres(t, testkit.Options{})
	ctx := clerkinvite.WithActor(t.Context(), "boss")
	results, err := b.InviteMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "a@example.com"), testkit.Params("acme", "b@example.com")}, nil)
	require.NoError(t, err)
	for _, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, "boss", r.Member.ChangedBy)
	}
}

// writes calls each method that writes.
var writes = map[string]func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error{
	"Adopt": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		results, err := s.Adopt(ctx, []clerkinvite.Adopted{{InviteParams: testkit.Params("acme", "new@example.com"), ClerkUserID: "user_new"}})
		if len(results) != 1 || results[0].Member != nil || fmt.Sprint(results[0].Err) != fmt.Sprint(err) {
			return fmt.Errorf("of all %w, of one %+v", err, results)
		}
		return err
	},
	"Invite": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Invite(ctx, testkit.Params("acme", "new@example.com"))
		return err
	},
	"InviteMany": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.InviteMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "new@example.com")}, nil)
		return err
	},
	"Reserve": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Reserve(ctx, testkit.Params("acme", "new@example.com"))
		return err
	},
	"ReserveMany": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.ReserveMany(ctx, []clerkinvite.InviteParams{testkit.Params("acme", "new@example.com")})
		return err
	},
	"Deliver": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Deliver(ctx, nil)
		_, refs := s.Deliver(ctx, &clerkinvite.DeliverOptions{Refs: []clerkinvite.Ref{testkit.Acme("due@example.com")}})
		if fmt.Sprint(err) != fmt.Sprint(refs) {
			return fmt.Errorf("of all %w, of one %w", err, refs)
		}
		return err
	},
	"Run": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return s.Run(ctx, nil)
	},
	"Resend": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Resend(ctx, testkit.Ada)
		return err
	},
	"Revoke": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Revoke(ctx, testkit.Ada)
		return err
	},
	"Remove": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Remove(ctx, testkit.Ada)
		return err
	},
	"Purge": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		return s.Purge(ctx, testkit.Ada)
	},
	"Update": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		role := "editor"
		_, err := s.Update(ctx, testkit.Ada, clerkinvite.MemberUpdate{Role: &role})
		return err
	},
	"Resolve": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.Resolve(ctx, user)
		return err
	},
	"ResolveUser": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.ResolveUser(ctx, user.ID)
		return err
	},
	"HandleEvent": func(ctx context.Context, s *clerkinvite.Service, user clerkinvite.User) error {
		_, err := s.HandleEvent(ctx, &clerkinvite.Event{Type: clerkinvite.EventUserCreated, UserID: user.ID, User: &user})
		return err
	},
	"Reconcile": func(ctx context.Context, s *clerkinvite.Service, _ clerkinvite.User) error {
		_, err := s.Reconcile(ctx, nil)
		return err
	},
}

// reads are the methods that do not write themselves.
var reads = []string{"All", "ByUser", "Counts", "Format", "Get", "History", "InTx", "Link", "List", "WebhookHandler"}

func TestInvalidActor(t *testing.T) {
	t.Parallel()
	var methods []string
	service := reflect.TypeFor[*clerkinvite.Service]()
	for i := range service.NumMethod() {
		methods = append(methods, service.Method(i).Name)
	}
	require.ElementsMatch(t, methods, slices.Concat(slices.Collect(maps.Keys(writes)), reads), "a method is missing in writes or reads")

	testkit.Each(t, testkit.Options{}, func(t *testing.T, b *testkit.Rig) {
		m := b.MustInvite(t, "ada@example.com")
		_, err := b.Reserve(t.Context(), testkit.Params("acme", "due@example.com"))
		require.NoError(t, err)
		user := b.Clerk.AddVerifiedUser(m.Email)
		b.Clock.Advance(time.Hour)
		before, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
		require.NoError(t, err)
		b.Clerk.ResetCounts()
		for _, bad := range []string{" a", "a\x00", "\xff", strings.Repeat("x", 256)} {
			for name, call := range writes {
				var invalid *clerkinvite.InvalidParamsError
				require.ErrorAs(t, call(clerkinvite.WithActor(t.Context(), bad), b.Service, user), &invalid, "%s %q", name, bad)
				require.Equal(t, "actor", invalid.Field)
			}
			_, err := b.Get(clerkinvite.WithActor(t.Context(), bad), m.Ref())
			require.NoError(t, err, "reading is nobody's change")
		}
		after, err := b.Store.Page(t.Context(), clerkinvite.PageQuery{})
		require.NoError(t, err)
		assert.Equal(t, before, after)
		assert.Zero(t, b.Clerk.RequestCount())
	})
}
