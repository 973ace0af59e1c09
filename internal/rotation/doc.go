// Package rotation is the protocol that keeps exactly one valid credential of a kind in a
// Secret: it creates one, replaces it before it expires, and revokes the one that was
// replaced, whatever crashes, is denied or is lost in between.
//
// It is generic over the credential. What a kind of credential needs besides its backend
// (Backend) and the place where its record is kept (Store) is data: Rules, with a list of
// policies that judge the stored credential. The type parameter F is what the backend's
// list says of a credential beyond its identity and its times, for these policies.
//
// What has to be done is decided by Decide, a pure function of a View: the clock, the
// record, the backend's list and the settings. A Rotator executes it in five named steps
// (intend, create, store, expire, forget) that can be cut off after any of them: the
// record's pending and retiring entries are the ledger from which the next run continues.
// What may be lost with the process is in a State, one for each credential that is kept.
// docs/key-lifecycle.md explains the protocol.
//
// The package has no client of Kubernetes and no loop: a caller decides when to Converge.
package rotation
