//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package pgtest

import (
	"os"
	"syscall"
)

// On these systems the tests need CLERKINVITE_TEST_DATABASE; findBin returns an error before anything below is called.
const supported = false

type identity struct{ uid, gid int }

func serverIdentity() (*identity, error) { return nil, ErrNoBinaries }

func procAttr(*identity) *syscall.SysProcAttr { return nil }

func lockFile(*os.File) error { return ErrNoBinaries }

func quit(p *os.Process) error { return p.Kill() }
