// Package apikey is the API Key Manager: it keeps exactly one valid admin API key
// of a Headscale in a Kubernetes Secret, replaces it before it expires and has
// Headscale refuse the old one.
//
// What has to be done is decided by Decide, a pure function of the clock, the
// Secret, Headscale's list of keys and the settings. It is done by the Manager, in
// five named steps (intend, create, store, expire, forget) that can be cut off
// after any of them: the Secret's annotations are the ledger from which the next
// run goes on. docs/key-lifecycle.md explains the protocol.
package apikey
