//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package pgtest

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

const supported = true

// identity is the user to run the server as.
type identity struct{ uid, gid int }

// serverIdentity is nil for the user of this process, which is the right one unless it is root: PostgreSQL refuses root. The user
// must be one that the system knows by name, or initdb refuses it.
func serverIdentity() (*identity, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is an answer here
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			continue
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			continue
		}

		return &identity{uid, gid}, nil
	}

	return nil, fmt.Errorf("this is root, which PostgreSQL refuses, and there is neither a user postgres nor a user nobody")
}

// procAttr keeps the terminal's interrupt away from the server, which has its own process group, and lets it run as the given user and,
// where the system can do that, end with this process. Elsewhere a killed test binary leaves its server to the next run's sweep.
func procAttr(id *identity) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if id != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	}
	dieWithParent(attr)

	return attr
}

// lockFile locks the file or fails, without waiting. The lock ends with the process.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// quit asks the server to end at once.
func quit(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }
