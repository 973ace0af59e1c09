//go:build !faultinjection

package user

// faultpoint does nothing. A build with the tag faultinjection can be told to be killed here.
func faultpoint(step) {}
