// Package serverbuild provides the real servers that tests and the demo run
// against: etcd, kube-apiserver and kubectl, and Headscale in several versions.
//
// Each comes from a small module below test/servers that pins it as a tool, so
// that nothing but the Go toolchain is needed to get it. What was built is kept
// in a cache directory under a name that contains a digest of everything that
// went into it: a changed pin never meets an old program.
package serverbuild
