package resources

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// address is where a server listens.
type address struct {
	host string
	port int32
}

// parseAddress reads host:port. The host may be empty, which means every
// interface; an IPv6 address stands in brackets; the port is a number from 1 to
// 65535.
func parseAddress(text string) (address, error) {
	host, digits, err := net.SplitHostPort(text)
	if err != nil {
		return address{}, fmt.Errorf("%q is not host:port, such as 0.0.0.0:8080", text)
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || port == 0 {
		return address{}, fmt.Errorf("%q has no port from 1 to 65535, such as 0.0.0.0:8080", text)
	}
	return address{host: host, port: int32(port)}, nil
}

// loopback reports whether nothing outside the pod can reach the address.
func (a address) loopback() bool {
	if strings.EqualFold(a.host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(a.host)
	return err == nil && ip.IsLoopback()
}
