// Package connect opens Kafka and Redis as companies run them: with TLS, SASL,
// access control lists and Redis Cluster. Every command embeds the same flags.
//
// Secrets come from files, read again at each authentication so that a rotated
// one needs no restart, or from the environment. They are never flags, which
// every user of a machine can read, and never part of an error.
package connect

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// secret is where a password or a token comes from.
type secret struct {
	file  string
	value string // where there is no file
}

// read returns the secret as of now, without the newline at a file's end.
func (s secret) read() (string, error) {
	if s.file == "" {
		return s.value, nil
	}
	b, err := os.ReadFile(s.file)
	if err != nil {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" {
		return "", fmt.Errorf("reading a secret: %s is empty", s.file)
	}
	return text, nil
}

// certificates are PEM files. The names of the flags are for errors.
type certificates struct {
	prefix        string // of the flags, "kafka" or "redis"
	ca, cert, key string
}

func (c certificates) given() bool { return c.ca != "" || c.cert != "" || c.key != "" }

// config verifies servers by the CA's certificates, or the system's, and the
// name that was dialled. A client's own certificate is read at each handshake.
func (c certificates) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("--%s-ca-file: %w", c.prefix, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--%s-ca-file: %s has no PEM certificate", c.prefix, c.ca)
		}
	}
	if (c.cert == "") != (c.key == "") {
		return nil, fmt.Errorf("--%[1]s-cert-file and --%[1]s-key-file go together", c.prefix)
	}
	if c.cert == "" {
		return config, nil
	}
	load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		return &pair, err
	}
	if _, err := load(nil); err != nil {
		return nil, fmt.Errorf("--%[1]s-cert-file, --%[1]s-key-file: %[2]w", c.prefix, err)
	}
	config.GetClientCertificate = load
	return config, nil
}

// errNoPassword says where a password may come from.
func errNoPassword(prefix string) error {
	return errors.New("--" + prefix + "-user has no password: give --" + prefix + "-password-file, or the password in the environment")
}
