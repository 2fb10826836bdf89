//go:build !linux

package pgtest

import (
	"os"
	"syscall"
)

// dieWithParent does nothing, because only Linux supports it.
func dieWithParent(*syscall.SysProcAttr) {}

// baseDir returns the system's directory for temporary files.
func baseDir() string { return os.TempDir() }
