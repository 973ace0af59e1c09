// Package instance gives controllers access to the Headscale that an object refers to: whether the
// namespace of the object may refer to it, whether it runs, its admin API, and one snapshot of its
// users, nodes, pre-auth keys and policy, which all objects that refer to it share. The package is
// independent of the kinds of these objects.
//
// The snapshot is read once in MaxAge while there are such objects, updated with what the operator
// writes, and read again after an error. Calls to one Headscale are serialized; calls to different
// ones are not. While a Headscale does not answer, one timer retries, not every object. While it
// answers slowly, only one object of each kind is reconciled at a time, so there are workers for
// other Headscales; the other objects wait, and are enqueued when it is their turn.
package instance
