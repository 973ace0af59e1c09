// Package apikey is the API Key Manager: it keeps exactly one valid admin API key
// of a Headscale in a Kubernetes Secret, replaces it before it expires and has
// Headscale refuse the old one.
//
// The protocol by which it does so is package rotation's. This package has what is specific to
// API keys: Headscale as the backend, the Secret as the store (ReadRecord, WriteRecord), the
// Rules, the loop and what wakes it (Manager), the metrics and the command line.
//
// It also keeps the private keys of a Headscale that has a backup (Identity), which the same program
// restores to an empty volume before Headscale starts (RestoreIdentity).
package apikey
