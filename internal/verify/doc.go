// Package verify compares the running system with independent readings of the
// written rules: scripts in Python's standard library (folder python) that share
// no line with the rest, and clients that are not ours.
//
// It is tests only. They need the real services, the public CDNOW and UCI
// Online Retail logs and Python 3, and are skipped with the reason where one is
// missing.
package verify
