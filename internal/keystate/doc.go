// Package keystate evaluates the state of a Headscale's API key. The operator writes what
// it says to the status, and kubectl headscale prints it, so that both agree to the second.
// Everything in it is a pure function: no client, no clock.
package keystate
