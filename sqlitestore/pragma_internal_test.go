package sqlitestore

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every connection has the settings that the promises depend on.
func TestPragmasOfEveryConnection(t *testing.T) {
	t.Parallel()
	store, err := Open(filepath.Join(t.TempDir(), "clerkinvite.db"))
	require.NoError(t, err)
	defer store.Close()
	require.NoError(t, store.Migrate(t.Context()))
	for db, n := range map[*sql.DB]int{store.writer: 1, store.db: 3} {
		var conns []*sql.Conn
		for range n {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			for pragma, want := range map[string]string{
				"synchronous": "2", "foreign_keys": "1", "secure_delete": "1", "busy_timeout": "10000", "journal_mode": "wal",
			} {
				var got string
				require.NoError(t, conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
				require.Equal(t, want, got, pragma)
			}
			require.NoError(t, conn.Close())
		}
	}
}
