package embedded

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// errSharingViolation is ERROR_SHARING_VIOLATION: somebody has the file open
// for writing.
const errSharingViolation = syscall.Errno(32)

// tryLock opens the file so that others can only read it, or says errLocked.
func tryLock(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.FILE_SHARE_READ,
		nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharingViolation) {
		return nil, errLocked
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// syncDir does nothing: folders cannot be synced here.
func syncDir(string) error { return nil }

// terminate is not used: redis-server is not run here.
func terminate(int) error { return errors.ErrUnsupported }

func ownGroup(*exec.Cmd) {}
