package apikey

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation"

	"infrado.cloud/headscale-operator/api/v1beta1"
	"infrado.cloud/headscale-operator/internal/rotation"
)

// DefaultMetricsAddress is where metrics and health are served by default.
const DefaultMetricsAddress = ":9101"

// DefaultAdminAddress is where Headscale's admin API is served by default.
const DefaultAdminAddress = ":9102"

// nowhere is the address that says that something is not served.
const nowhere = "0"

// Options are what the command line says.
type Options struct {
	// SocketPath is the path of Headscale's Unix socket.
	SocketPath string
	// Namespace and SecretName say where the key is kept.
	Namespace, SecretName string
	rotation.Settings
	// Owner is the Headscale that the Secret goes with, nil if there is none.
	Owner *Owner
	// MetricsAddress is where metrics and health are served, empty if nowhere.
	MetricsAddress string
	// AdminAddress is where Headscale's admin API is served, empty if nowhere.
	AdminAddress string
	// HeadscaleVersion is what the metrics say of the Headscale next to this program.
	HeadscaleVersion string
	// IdentitySecret names the Secret that keeps Headscale's private keys, and IdentityDir has
	// them; empty if they are not kept.
	IdentitySecret, IdentityDir string
	// Version asks for the version only.
	Version bool
}

// ParseOptions reads the arguments of the command line, the program's name left
// out. Where there is no --namespace, defaultNamespace is asked for one. Usage is
// printed to output when it is asked for, and the error is flag.ErrHelp then.
// Every other error is one sentence that names the flag and says what to do.
func ParseOptions(arguments []string, defaultNamespace func() string, output io.Writer) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("apikey-manager", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&o.SocketPath, "socket-path", v1beta1.DefaultSocketPath, "`path` of Headscale's Unix socket")
	flags.StringVar(&o.Namespace, "namespace", "", "`namespace` of the Secret (default: POD_NAMESPACE, then the namespace of the ServiceAccount)")
	flags.StringVar(&o.SecretName, "secret-name", v1beta1.DefaultSecretName, "`name` of the Secret that holds the key")
	owner := flags.String("owner", "", "`NAME/UID` of the Headscale with which the Secret is deleted, if it is created here (default: none)")
	flags.DurationVar(&o.Expiration, "expiration", v1beta1.DefaultExpiration, "how long a new key is valid: a `duration` in hours, minutes and seconds")
	flags.DurationVar(&o.RotationBuffer, "rotation-buffer", 0, "how long before its expiration a key is replaced: a `duration` (default 8/9 of the expiration, which is 1920h of 2160h)")
	flags.DurationVar(&o.RevocationDelay, "revocation-delay", 0, "how long the old key stays valid after a new one was stored: a `duration` (default 0s: it is expired at once)")
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", DefaultMetricsAddress, "`address` for metrics (/metrics) and health (/healthz), 0 for none")
	flags.StringVar(&o.AdminAddress, "admin-bind-address", DefaultAdminAddress, "`address` of the admin endpoint, which serves Headscale's admin API to clients with the key, 0 for none")
	flags.StringVar(&o.HeadscaleVersion, "headscale-version", "", "`version` of Headscale, for the metrics only")
	flags.StringVar(&o.IdentitySecret, "identity-secret", "", "`name` of the Secret that keeps Headscale's private keys (default: none)")
	flags.StringVar(&o.IdentityDir, "identity-dir", "", "`directory` with these keys, as restore-identity copied them")
	flags.BoolVar(&o.Version, "version", false, "print the version and exit")

	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			_, _ = fmt.Fprintln(output, "apikey-manager keeps a valid admin API key of a Headscale in a Kubernetes Secret.\n\nFlags:")
			flags.SetOutput(output)
			flags.PrintDefaults()
			return o, err
		}
		return o, explain(err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: all options are flags, such as --namespace=NAME (see --help)", flags.Arg(0))
	}
	if o.Version {
		return o, nil
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if !given["rotation-buffer"] {
		o.RotationBuffer = v1beta1.DefaultRotationBuffer(o.Expiration)
	}
	if o.Namespace == "" {
		o.Namespace = defaultNamespace()
	}
	if err := checkAddress("metrics", "no metrics", DefaultMetricsAddress, &o.MetricsAddress); err != nil {
		return o, err
	}
	if err := checkAddress("admin", "no admin endpoint", DefaultAdminAddress, &o.AdminAddress); err != nil {
		return o, err
	}
	if given["owner"] {
		var err error
		if o.Owner, err = parseOwner(*owner); err != nil {
			return o, err
		}
	}
	return o, o.Validate()
}

// Validate returns an error that names the flag that is wrong, and what to do.
func (o Options) Validate() error {
	switch {
	case o.SocketPath == "":
		return errors.New("--socket-path is empty; it must be the path of Headscale's Unix socket, such as " + v1beta1.DefaultSocketPath)
	case o.SecretName == "":
		return errors.New("--secret-name is empty; it must be the name of a Secret, such as " + v1beta1.DefaultSecretName)
	case o.Namespace == "":
		return errors.New("there is no namespace: outside a pod, give --namespace=NAME or set POD_NAMESPACE")
	}
	if problems := validation.IsDNS1123Subdomain(o.SecretName); len(problems) > 0 {
		return fmt.Errorf("--secret-name is %q, which no Secret can be named: %s", o.SecretName, problems[0])
	}
	if (o.IdentitySecret == "") != (o.IdentityDir == "") {
		return errors.New("--identity-secret and --identity-dir are given together, or neither is")
	}
	if o.IdentitySecret != "" && o.Owner == nil {
		return errors.New("--identity-secret is given without --owner, which names the Headscale whose private keys are kept")
	}
	if problems := validation.IsDNS1123Label(o.Namespace); len(problems) > 0 {
		return fmt.Errorf("--namespace is %q, which no namespace can be named: %s", o.Namespace, problems[0])
	}
	return validateSettings(o.Settings)
}

// checkAddress refuses what cannot be listened on, and empties what says that nothing is to
// be. Port 0 is any that is free.
func checkAddress(name, none, example string, address *string) error {
	if *address == nowhere {
		*address = ""
		return nil
	}
	_, port, err := net.SplitHostPort(*address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("--%s-bind-address is %q; it must be host:port with a port up to 65535, such as %s or 127.0.0.1%s, or 0 for %s", name, *address, example, example, none)
	}
	return nil
}

// badValue and unknownFlag are what package flag says of a value that it cannot
// parse and of a flag that it does not know.
var (
	badValue    = regexp.MustCompile(`^invalid (?:boolean )?value "(.*)" for (?:flag )?-+([^:]*): `)
	unknownFlag = regexp.MustCompile(`^flag provided but not defined: -+(.*)$`)
)

// explain turns an error of package flag into a sentence that says what to do.
func explain(err error) error {
	if match := badValue.FindStringSubmatch(err.Error()); match != nil {
		if match[2] == "version" {
			return fmt.Errorf("--version is %q; it takes no value", match[1])
		}
		return fmt.Errorf("--%s is %q; write a duration in hours, minutes and seconds, such as 2160h or 1h30m (90 days are 2160h)", match[2], match[1])
	}
	if match := unknownFlag.FindStringSubmatch(err.Error()); match != nil {
		return fmt.Errorf("there is no flag --%s; see --help for those there are", match[1])
	}
	return fmt.Errorf("%w; see --help", err)
}
