package clerkinvite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
)

func TestFailure(t *testing.T) {
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
		again, maybeMade := failure(tc.err)
		assert.Equal(t, tc.again, again, name)
		assert.Equal(t, tc.maybeMade, maybeMade, name)
	}
}
