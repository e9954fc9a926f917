package connect

import (
	"fmt"

	"github.com/tierstream/tierstream/internal/registry"
)

// RegistryPassword is the setting without a flag: its variable has the password
// where there is no file.
const RegistryPassword = "registry-password"

// Registry is the flags that say how a schema registry is spoken to. Its address
// stands in the mapping, because it says what the IDs in records mean.
type Registry struct {
	User     string `name:"registry-user" help:"User of the mapping's schema registry." placeholder:"NAME"`
	Password string `name:"registry-password-file" help:"File with that user's password; read again at each request. Without it the variable REGISTRY_PASSWORD, with the prefix of the others." type:"existingfile" placeholder:"FILE"`
	CA       string `name:"registry-ca-file" help:"Certificates that sign those of an https:// registry, PEM. Default: the system's." type:"existingfile" placeholder:"FILE"`
	Cert     string `name:"registry-cert-file" help:"Our certificate for mutual TLS, PEM; read again at each connection." type:"existingfile" placeholder:"FILE"`
	Key      string `name:"registry-key-file" help:"Its private key, PEM." type:"existingfile" placeholder:"FILE"`
}

// Open makes a client of the registry at url. password is what the environment
// says, and used when no file is given.
func (r *Registry) Open(url, password string) (*registry.Client, error) {
	o := registry.Options{URL: url, User: r.User}
	from := secret{r.Password, password}
	now, err := from.read()
	switch {
	case err != nil:
		return nil, fmt.Errorf("--registry-password-file: %w", err)
	case r.User == "" && r.Password != "":
		return nil, fmt.Errorf("--registry-password-file without --registry-user")
	case r.User != "" && now == "":
		return nil, errNoPassword("registry")
	case r.User != "":
		o.Password = from.read
	}
	if files := (certificates{"registry", r.CA, r.Cert, r.Key}); files.given() {
		if o.TLS, err = files.config(); err != nil {
			return nil, err
		}
	}
	return registry.Open(o)
}
