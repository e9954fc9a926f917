//go:build !unix && !windows

package embedded

import (
	"errors"
	"os"
	"os/exec"
)

func tryLock(string) (*os.File, error) { return nil, errors.ErrUnsupported }
func syncDir(string) error             { return nil }
func terminate(int) error              { return errors.ErrUnsupported }
func ownGroup(*exec.Cmd)               {}
