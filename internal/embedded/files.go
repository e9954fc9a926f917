package embedded

import (
	"io"
	"os"
	"path/filepath"
)

// writeFile replaces a file with all of text or leaves it as it was, whatever
// happens meanwhile.
func writeFile(path string, text []byte) error {
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// replaceFile is writeFile for a text that write makes.
func replaceFile(path string, write func(io.Writer) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // the first error is the one to tell
		}
	}()
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
