package resources

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"infrado.cloud/headscale-operator/api/v1beta1"
)

// Names of the pod's ports, in the containers and in the Services.
const (
	portHTTP    = "http"
	portGRPC    = "grpc"
	portMetrics = "metrics"
	portSTUN    = "stun"
	// portACME is where Let's Encrypt asks for the answer to its challenge.
	portACME = "acme"
	// portKeyMetrics is the API Key Manager's; the others are Headscale's.
	portKeyMetrics = "apikey-metrics"
	// portKeyAdmin is the API Key Manager's too, and in no Service: who may use it connects to
	// the pod.
	portKeyAdmin = "apikey-admin"
)

// keyMetricsPort is where the API Key Manager serves its metrics and its health.
const keyMetricsPort = 9101

// AdminPort is where the API Key Manager serves Headscale's admin API.
const AdminPort = 9102

// takenPorts are those of the other containers of a pod, and who serves what there.
func takenPorts(spec *v1beta1.HeadscaleSpec) map[int32]string {
	taken := map[int32]string{}
	if spec.APIKey.Managed() {
		taken[keyMetricsPort], taken[AdminPort] = "the API Key Manager serves its metrics", "the API Key Manager serves Headscale's admin API"
	}
	if spec.Backup != nil {
		taken[backupPort] = "Litestream serves its metrics"
	}
	return taken
}

// tmpDir is where programs put temporary files.
const tmpDir = "/tmp"

// tokenDir is where every Kubernetes client looks for its ServiceAccount.
const tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// port is a port that Headscale serves to others.
type port struct {
	name   string
	number int32
}

// layout is what a pod must know of a completed config.
type layout struct {
	// ports are those that can be reached from outside the pod: http first, then
	// grpc, metrics, stun and acme where there are such.
	ports []port
	// tls is whether Headscale serves TLS.
	tls bool
	// acme is whether Headscale gets its certificate itself, so that it answers to
	// its own host name only.
	acme bool
	// socket is the path of the Unix socket.
	socket string
	// dataDir is where the data volume is mounted.
	dataDir string
}

// layoutOf reads the layout from a completed config and its known fields. Some ports are taken.
func layoutOf(values document, config *v1beta1.HeadscaleConfig, taken map[int32]string) (layout, error) {
	dir, err := dataDir(values)
	if err != nil {
		return layout{}, err
	}
	challenge, err := challengeAddress(values)
	if err != nil {
		return layout{}, err
	}
	ports, err := portsOf(config, challenge, taken)
	if err != nil {
		return layout{}, err
	}
	result := layout{
		ports:   ports,
		tls:     config.TLSCertPath != "" || config.TLSLetsEncryptHostname != "",
		acme:    config.TLSLetsEncryptHostname != "",
		socket:  path.Clean(config.UnixSocket),
		dataDir: path.Clean(dir),
	}
	if err := result.checkDirs(); err != nil {
		return layout{}, err
	}
	return result, nil
}

// portsOf reads the ports from a completed config, and the address of its ACME server. A
// server on a loopback address has none: nothing outside the pod can reach it.
func portsOf(config *v1beta1.HeadscaleConfig, challenge string, others map[int32]string) ([]port, error) {
	listeners := []struct{ field, name, text string }{
		{"config.listen_addr", portHTTP, string(config.ListenAddr)},
		{"config.grpc_listen_addr", portGRPC, string(config.GRPCListenAddr)},
		{"config.metrics_listen_addr", portMetrics, *config.MetricsListenAddr},
		{"config.derp.server.stun_listen_addr", portSTUN, stunAddress(config)},
		{"config.tls_letsencrypt_listen", portACME, challenge},
	}
	fields := map[string]string{}
	var ports []port
	for _, listener := range listeners {
		if listener.text == "" {
			continue
		}
		addr, err := parseAddress(listener.text)
		if err != nil {
			return nil, invalid(listener.field, "is not usable: %v", err)
		}
		socket := fmt.Sprintf("%s/%d", protocolOf(listener.name), addr.port)
		if other, taken := fields[socket]; taken {
			return nil, invalid(listener.field, "has the port %d, which %s has too: give each its own", addr.port, other)
		}
		if served := others[addr.port]; served != "" && protocolOf(listener.name) == corev1.ProtocolTCP {
			return nil, invalid(listener.field, "has the port %d, on which %s: choose another", addr.port, served)
		}
		fields[socket] = "spec." + listener.field
		if !addr.loopback() {
			ports = append(ports, port{listener.name, addr.port})
		}
	}
	if len(ports) == 0 || ports[0].name != portHTTP {
		return nil, invalid("config.listen_addr", "must not be a loopback address: nothing outside the pod could reach Headscale; write 0.0.0.0:8080")
	}
	return ports, nil
}

// stunAddress is where the relay's STUN server listens, or "".
func stunAddress(config *v1beta1.HeadscaleConfig) string {
	if config.DERP == nil || config.DERP.Server == nil || config.DERP.Server.Enabled == nil || !*config.DERP.Server.Enabled {
		return ""
	}
	return string(config.DERP.Server.STUNListenAddr)
}

// challengeAddress is where Headscale answers the HTTP-01 challenge of Let's Encrypt, or ""
// where it has no certificate of its own or answers on its listen_addr.
func challengeAddress(config document) (string, error) {
	hostname, err := config.text("tls_letsencrypt_hostname")
	if err != nil || hostname == "" {
		return "", err
	}
	kind, err := config.text("tls_letsencrypt_challenge_type")
	if err != nil || kind == challengeTLS {
		return "", err
	}
	listen, err := config.text("tls_letsencrypt_listen")
	if host, named := strings.CutSuffix(listen, ":http"); named {
		return host + ":80", err
	}
	return listen, err
}

// exposed returns the ports of the given names, in the order of the layout.
func (l *layout) exposed(names ...string) []port {
	return slices.DeleteFunc(slices.Clone(l.ports), func(p port) bool { return !slices.Contains(names, p.name) })
}

// privileged reports whether a port is one that only root can open by default.
func (l *layout) privileged() bool {
	return slices.ContainsFunc(l.ports, func(p port) bool { return p.number < 1024 })
}

// socketDir is where the socket's volume is mounted.
func (l *layout) socketDir() string {
	return path.Dir(l.socket)
}

// systemDirs hold what an image or the container runtime needs: a volume over one
// of them, or inside one, would break the container.
var systemDirs = []string{"/bin", "/boot", "/dev", "/ko-app", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"}

// sharedDirs are fine as the parent of a volume and not as a volume.
var sharedDirs = []string{"/", "/etc", "/home", "/opt", "/root", "/run", "/var", "/var/lib", "/var/run", tmpDir}

// checkDirs refuses directories that volumes cannot be mounted at together.
func (l *layout) checkDirs() error {
	const socketField, dataField = "config.unix_socket", "config.database.sqlite.path"
	for _, volume := range []struct{ field, dir string }{{socketField, l.socketDir()}, {dataField, l.dataDir}} {
		if slices.Contains(sharedDirs, volume.dir) || slices.ContainsFunc(systemDirs, func(dir string) bool { return within(volume.dir, dir) }) {
			return invalid(volume.field, "must not be in %s, which a volume would hide: choose a directory of its own, such as /var/run/headscale or /var/lib/headscale", volume.dir)
		}
		for _, taken := range []string{configDir, filesDir, tokenDir, identityDir, identitySecretDir} {
			if overlap(volume.dir, taken) {
				return invalid(volume.field, "must not be in %s, because another volume is mounted at %s: choose a directory of its own", volume.dir, taken)
			}
		}
	}
	if overlap(l.socketDir(), l.dataDir) {
		return invalid(socketField, "must be outside the data directory %s: choose a directory of its own, such as /var/run/headscale", l.dataDir)
	}
	return nil
}

// overlap reports whether one directory is, or lies in, the other.
func overlap(a, b string) bool {
	return within(a, b) || within(b, a)
}

// within reports whether a directory is, or lies in, the other.
func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, strings.TrimSuffix(parent, "/")+"/")
}
