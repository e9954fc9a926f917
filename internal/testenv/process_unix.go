//go:build unix

package testenv

import (
	"errors"
	"os"
	"syscall"
)

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
func terminate(pid int) error { return syscall.Kill(-pid, syscall.SIGTERM) }
func pause(pid int) error     { return syscall.Kill(-pid, syscall.SIGSTOP) }
func resume(pid int) error    { return syscall.Kill(-pid, syscall.SIGCONT) }

// tryLock takes an exclusive lock on the file or says errLocked.
func tryLock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "flock", Path: path, Err: err}
	}
	return func() { file.Close() }, nil
}
