// Package preauthkey keeps a valid pre-auth key in the Secret of each HeadscalePreAuthKey. Package
// rotation has the protocol; this package has how a key is identified (identity.go), when it is
// replaced (rules.go), how it is created in Headscale (backend.go), and how it is stored (record.go,
// store.go).
package preauthkey
