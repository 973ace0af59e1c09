// Package instance leads from a reference to a Headscale to the Headscale itself: whether the
// namespace that refers to it may, whether it runs, its admin API, and one snapshot of what it
// has, which all objects share that refer to it. It knows no kind of these objects.
//
// The snapshot is read once in MaxAge while there are such objects, updated with what the operator
// writes, and read anew after an error. Calls to one Headscale are serialized; calls to different
// ones are not. While a Headscale does not answer, one timer retries, not every object. Of one that
// answers slowly, one object of each kind is reconciled at a time, so that there are workers for the
// others; the objects that are not wait, and are named again when it is their turn.
package instance
