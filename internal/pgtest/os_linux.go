package pgtest

import (
	"os"
	"syscall"
)

// dieWithParent makes the system send SIGQUIT (end immediately) to the server when the thread that started it ends.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGQUIT }

// baseDir returns a directory in memory if it is large enough: creating the files of clusters and databases is the expensive part,
// and it is fifty times faster in memory. Containers often have only 64 MB there, less than two clusters.
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
