//go:build !faultinjection

package apikey

import "infrado.cloud/headscale-operator/internal/rotation"

// faultpoint does nothing. A build with the tag faultinjection can be told to be
// killed here.
func faultpoint(rotation.Step) {}
