//go:build !linux

package pgtest

import (
	"os"
	"syscall"
)

// dieWithParent does nothing: only Linux can do that.
func dieWithParent(*syscall.SysProcAttr) {}

// baseDir is the system's directory for temporary files.
func baseDir() string { return os.TempDir() }
