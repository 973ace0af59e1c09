// Package integration has the tests of the whole: a real API server, the operator's
// program with the rights of its installation, a real Headscale, and the API Key
// Manager's program with the rights that the operator gives it.
package integration
