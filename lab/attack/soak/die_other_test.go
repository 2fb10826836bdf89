//go:build !linux

package soak_test

import "syscall"

func dieTogether() *syscall.SysProcAttr { return nil }
