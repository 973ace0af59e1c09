// Package preauthkey keeps a pre-auth key that works in the Secret of each HeadscalePreAuthKey. The
// protocol is that of package rotation: here is what a pre-auth key is known by (identity.go), what
// makes one bad (rules.go), who makes it (backend.go) and where it is kept (record.go, store.go).
package preauthkey
