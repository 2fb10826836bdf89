package soak_test

import "syscall"

// dieTogether makes children die with the test, however it ends.
func dieTogether() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
