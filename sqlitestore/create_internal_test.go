package sqlitestore

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Without hard links (here with the error that Linux returns), the error says what to do, and no file is left behind.
func TestCreateWithoutHardLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "clerkinvite.db")
	none := func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM} }
	err := create(path, none)
	require.ErrorIs(t, err, syscall.EPERM)
	require.ErrorContains(t, err, "create an empty file there that only its owner can read")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, create(path, none))
}

// If another process creates the file at the same time, that is not an error, and its contents stay.
func TestConcurrentCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "clerkinvite.db")
	require.NoError(t, create(path, func(from, to string) error {
		require.NoError(t, os.WriteFile(to, []byte("another's"), 0o600))
		return os.Link(from, to)
	}))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "another's", string(content))
}
