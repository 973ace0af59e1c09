//go:build !faultinjection

package apikey

// faultpoint does nothing. A build with the tag faultinjection can be told to be
// killed here.
func faultpoint(Step) {}
