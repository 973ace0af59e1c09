// Package rotation is the protocol that keeps exactly one valid credential of a kind in a Secret:
// it creates one, replaces it before it expires, and revokes the one that was replaced, even if
// anything crashes, is denied or is lost in between.
//
// It is generic over the credential. What a kind of credential needs besides its backend
// (Backend) and the place where its record is kept (Store) is data: Rules, with a list of
// policies that judge the stored credential. The type parameter F is what the backend's
// list says of a credential beyond its identity and its times, for these policies.
//
// Decide, a pure function of a View, decides what has to be done. A View has the clock, the record,
// the backend's list and the settings. A Rotator executes the decision in five named steps (intend,
// create, store, expire, forget), and may be interrupted after each of them: the record's pending
// and retiring entries are the ledger from which the next run continues. A State has what may be
// lost with the process; there is one for each credential. docs/key-lifecycle.md explains the
// protocol.
//
// The package has no Kubernetes client and no loop: the caller decides when to call Converge.
package rotation
