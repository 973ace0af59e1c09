package podrunner

import (
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

// listener is a setting of Headscale that holds an address to listen on. The
// variable that overrides it is made from its name.
type listener []string

// listeners are all of Headscale's.
var listeners = []listener{
	{"listen_addr"},
	{"metrics_listen_addr"},
	{"grpc_listen_addr"},
	{"derp", "server", "stun_listen_addr"},
}

// variable is the environment variable that overrides the setting.
func (l listener) variable() string {
	return "HEADSCALE_" + strings.ToUpper(strings.Join(l, "_"))
}

// portMap says at which address of this machine each port of the pod can be
// reached. It stays the same when the pod is replaced.
type portMap struct {
	mutex     sync.Mutex
	addresses map[int]string
}

// address is the one for a port of the pod, chosen when it is first asked for.
func (m *portMap) address(port int) (string, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if address, known := m.addresses[port]; known {
		return address, nil
	}
	address, err := env.FreeAddress()
	if err != nil {
		return "", err
	}
	if m.addresses == nil {
		m.addresses = map[int]string{}
	}
	m.addresses[port] = address
	return address, nil
}

// lookup is the address for a port, or that port itself on the loopback interface.
func (m *portMap) lookup(port int) string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if address, known := m.addresses[port]; known {
		return address
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// moveListeners returns the variables that move the addresses in one of
// Headscale's config files to free ones. Another program's file has none.
func moveListeners(configPath string, ports *portMap) (map[string]string, error) {
	content, err := os.ReadFile(configPath)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	config := map[string]any{}
	variables := map[string]string{}
	// What is not YAML belongs to another program.
	_ = yaml.Unmarshal(content, &config)
	for _, l := range listeners {
		text, _, _ := unstructured.NestedString(config, l...)
		if text == "" {
			continue
		}
		number, err := portOf(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(l, "."), err)
		}
		if variables[l.variable()], err = ports.address(number); err != nil {
			return nil, err
		}
	}
	return variables, nil
}

// bindAddress is how a flag ends that holds an address to listen on.
const bindAddress = "-bind-address"

// moveBindAddress moves the address in an argument such as --metrics-bind-address=:9101
// to a free one. Other arguments, and an address without a port, stay as they are.
func moveBindAddress(arg string, ports *portMap) (string, error) {
	flag, text, found := strings.Cut(arg, "=")
	if !found || !strings.HasSuffix(flag, bindAddress) {
		return arg, nil
	}
	number, err := portOf(text)
	if err != nil {
		return arg, nil //nolint:nilerr // It turns the listener off.
	}
	address, err := ports.address(number)
	return flag + "=" + address, err
}

// portOf is the port of an address.
func portOf(address string) (int, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}
