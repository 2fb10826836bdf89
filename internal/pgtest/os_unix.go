//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package pgtest

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

const supported = true

// identity is the user to run the server as.
type identity struct{ uid, gid int }

// serverIdentity returns nil for the user of this process. For root it returns another user, because PostgreSQL does not
// run as root. The user must have a name, because initdb looks it up.
func serverIdentity() (*identity, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil means this user
	}
	names := []string{"postgres", "nobody"}
	for _, name := range names {
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

	return nil, fmt.Errorf("PostgreSQL does not run as root: create one of the users %s, or run the tests as another user", strings.Join(names, ", "))
}

// procAttr gives the server its own process group, so that the terminal's interrupt does not reach it, and the given user. On Linux
// the server ends with this process; elsewhere, after a kill, the next run's sweep ends it.
func procAttr(id *identity) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if id != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	}
	dieWithParent(attr)

	return attr
}

// lockFile locks the file, or fails without waiting. The lock ends with the process.
func lockFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// quit makes the server end immediately.
func quit(p *os.Process) error { return p.Signal(syscall.SIGQUIT) }
