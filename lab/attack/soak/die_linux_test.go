package soak_test

import "syscall"

// dieTogether lets children die with the test, however it ends.
func dieTogether() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
