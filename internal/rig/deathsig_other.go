//go:build unix && !linux

package rig

import "syscall"

func ownProcess() *syscall.SysProcAttr { return nil }
