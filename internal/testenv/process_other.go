//go:build !unix

package testenv

import (
	"errors"
	"os/exec"
)

// Services are not started here: reserving a port fails first, with this
// error, and tests skip with it.
var errSystem = &MissingError{What: "a Unix system"}

func killGroup(int) error { return errors.ErrUnsupported }
func terminate(int) error { return errors.ErrUnsupported }
func pause(int) error     { return errors.ErrUnsupported }
func resume(int) error    { return errors.ErrUnsupported }

func ownGroup(*exec.Cmd) {}

func tryLock(string) (unlock func(), err error) { return nil, errSystem }
