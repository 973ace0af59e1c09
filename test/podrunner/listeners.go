package podrunner

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"infrado.cloud/headscale-operator/test/env"
)

// listeners are Headscale's settings that hold an address to listen on. The
// variable that overrides one is made from its name.
var listeners = []string{"listen_addr", "metrics_listen_addr", "grpc_listen_addr", "derp.server.stun_listen_addr"}

// portMap says at which address of this machine each port of the pod can be
// reached. It stays the same when the pod is replaced.
type portMap struct {
	ip        string // the pod's own, or "": then its ports are moved to free ones
	mutex     sync.Mutex
	addresses map[string]string // by port
}

// move returns the address, chosen when it is first asked for, that stands for
// one of the pod.
func (m *portMap) move(address string) (string, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.addresses == nil {
		m.addresses = map[string]string{}
	}
	if m.ip != "" {
		m.addresses[port] = net.JoinHostPort(m.ip, port)
	} else if m.addresses[port] == "" {
		m.addresses[port], err = env.FreeAddress()
	}
	return m.addresses[port], err
}

// lookup is the address for a port, or that port itself on the loopback interface.
func (m *portMap) lookup(port int) string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	number := strconv.Itoa(port)
	return cmp.Or(m.addresses[number], net.JoinHostPort("127.0.0.1", number))
}

// moveListeners returns the variables that move the addresses in one of
// Headscale's config files to free ones. Another program's file has none.
func moveListeners(configPath string, ports *portMap) (map[string]string, error) {
	content, err := os.ReadFile(configPath)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	config, variables := map[string]any{}, map[string]string{}
	// What is not YAML belongs to another program.
	_ = yaml.Unmarshal(content, &config)
	for _, setting := range listeners {
		text, _, _ := unstructured.NestedString(config, strings.Split(setting, ".")...)
		if text == "" {
			continue
		}
		name := "HEADSCALE_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
		if variables[name], err = ports.move(text); err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
	}
	return variables, nil
}

// moveBindAddress moves the address in an argument such as --metrics-bind-address=:9101
// to a free one. Other arguments, and "0", which turns the listener off, stay as they are.
func moveBindAddress(arg string, ports *portMap) (string, error) {
	flag, text, _ := strings.Cut(arg, "=")
	if !strings.HasSuffix(flag, "-bind-address") || !strings.Contains(text, ":") {
		return arg, nil
	}
	address, err := ports.move(text)
	return flag + "=" + address, err
}
