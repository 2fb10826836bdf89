package clerkinvite

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/clerkinvite/clerkinvite/internal/storeutil"
)

// Without an observer, what the verbs do for one allocates nothing.
func TestUnobserved(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts what others allocate, too
	s, ctx, failed := &Service{}, t.Context(), errors.New("failed")
	verb := func(ctx context.Context) (err error) {
		ctx, op := s.observe(ctx, "Invite")
		defer op.end(&err)
		s.stateChanged(ctx, "", StatusReserved)
		return failed
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = verb(ctx) }))
}

func TestSQLFailure(t *testing.T) {
	t.Parallel()
	pg := func(code string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code}) }
	// ConnectError hides what it wraps from everybody but pgconn; a real one is in TestPgxStoreServerTrouble.
	connecting := func(err error) error { return errors.Join(&pgconn.ConnectError{}, err) }
	for name, tc := range map[string]struct {
		err              error
		again, maybeMade bool
	}{
		"broken connection":                 {io.ErrUnexpectedEOF, true, true},
		"time-out that is not the caller's": {context.DeadlineExceeded, true, true},
		"connect":                           {connecting(nil), true, false},
		"connection failure":                {pg("08006"), true, true},
		"PgBouncer lost its server":         {pg("08P01"), true, true},
		"connect through PgBouncer":         {connecting(pg("08P01")), true, false},
		"shutdown":                          {pg("57P01"), true, true},
		"crash":                             {pg("57P02"), true, true},
		"starting up":                       {connecting(pg("57P03")), true, false},
		"idle too long":                     {pg("57P05"), true, true},
		"completion unknown":                {pg("40003"), true, true},
		"serialization failure":             {pg("40001"), true, false},
		"deadlock":                          {pg("40P01"), true, false},
		"no connection left":                {connecting(pg("53300")), true, false},
		"wrong password":                    {connecting(pg("28P01")), false, false},
		"canceled by statement_timeout":     {pg("57014"), false, false},
		"lock_timeout":                      {pg("55P03"), false, false},
		"read-only":                         {pg("25006"), false, false},
		"no table":                          {pg("42P01"), false, false},
		"check":                             {pg("23514"), false, false},
		"unique":                            {pg("23505"), false, false},
		"out of memory":                     {pg("53200"), false, false},
	} {
		again, maybeMade := sqlFailure(tc.err)
		assert.Equal(t, tc.again, again, name)
		assert.Equal(t, tc.maybeMade, maybeMade, name)
	}
}

// FuzzReconcileCursor goes on from any cursor: it is refused, or a position that a store
// takes and that is written in the same way again.
func FuzzReconcileCursor(f *testing.F) {
	for _, p := range []string{
		`{}`, `{"t":"acme"}`, `{"t":"acme","i":"0190163d-8694-739b-aea5-966c26f8ad91"}`, `{"t":"a\u0000b"}`, `{"a":-1,"k":true}`, `{"a":1e9,"o":"2026-01-02T03:04:05Z"}`,
		`{"i":"urn:uuid:0190163d-8694-739b-aea5-966c26f8ad91"}`, `{"i":"{0190163d-8694-739b-aea5-966c26f8ad91}"}`, `{"i":"0190163d8694739baea5966c26f8ad91"}`,
		`{"i":"0190163D-8694-739B-AEA5-966C26F8AD91"}`, `null`, `[]`, `{"t":7}`, `{"T":"acme"}`, "{\"t\":\"\xff\"}", `{"o":"0000-00-00T00:00:00Z"}`, `{} {}`,
	} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(p)))
	}
	for _, s := range []string{"", "=", "e30\n", "e30=", "' OR 1=1 --", "\xff"} {
		f.Add(s)
	}
	svc, err := New(Config{API: struct{ ClerkAPI }{}, Store: struct{ Store }{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		p, err := decodePosition(cursor)
		if err != nil {
			var invalid *InvalidParamsError
			if !errors.As(err, &invalid) || invalid.Field != "Cursor" {
				t.Fatalf("%q: %v", cursor, err)
			}
			if _, err := svc.Reconcile(context.Background(), &ReconcileOptions{Cursor: cursor}); !errors.As(err, &invalid) {
				t.Fatalf("%q: Reconcile says %v", cursor, err)
			}
			return
		}
		if len(p.TenantID) > 255 || !utf8.ValidString(p.TenantID) || strings.ContainsFunc(p.TenantID, unicode.IsControl) && checkText(p.TenantID, 255) != "" ||
			p.ID != "" && !storeutil.IsUUID(p.ID) {
			t.Fatalf("%q is %+v", cursor, p)
		}
		again, err := decodePosition(p.encode())
		if a, b := jsonOf(t, p), jsonOf(t, again); err != nil || a != b {
			t.Fatalf("%q is %s, and written again %s, %v", cursor, a, b, err)
		}
	})
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
