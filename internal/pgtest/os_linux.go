package pgtest

import (
	"os"
	"syscall"
)

// dieWithParent lets the system send SIGQUIT, "end at once", to the server when the thread that started it ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// baseDir is memory if there is enough of it: it is the making of a cluster and of databases that costs, not the syncing, and a
// file system in memory makes a file fifty times faster. Containers often have 64 MB there, less than two clusters.
func baseDir() string {
	const memory = "/dev/shm"
	var stat syscall.Statfs_t
	if syscall.Statfs(memory, &stat) != nil || stat.Bavail*uint64(stat.Bsize) < 1<<30 {
		return os.TempDir()
	}
	dir, err := os.MkdirTemp(memory, dirPrefix+"probe-")
	if err != nil {
		return os.TempDir()
	}
	_ = os.Remove(dir)

	return memory
}
