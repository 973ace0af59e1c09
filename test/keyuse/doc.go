// Package keyuse looks at an API key from where its users are: when it is there, what they
// wait for at least, and whether Headscale lets them in. Tests and benchmarks share it.
package keyuse
