// Package headscale reconciles a Headscale's child objects with its spec, and reports in its
// status how far that has come.
//
// A reconcile of one Headscale is triggered by
//   - a change of its spec or annotations, or of an object that it owns,
//   - its pod, its claim, and the Job of a preflight with its pod,
//   - the metadata of its Secret, also while the Secret has another owner, and the Role of another
//     Headscale that wants the same Secret,
//   - a Secret or ConfigMap that the spec refers to,
//   - the answer of a Headscale that was started,
//   - the moment in which a key becomes overdue or expires,
//   - five seconds without a pod, or 30 once Kubernetes says why there is none,
//   - a minute after a conflict, or after a refused expansion of the volume.
package headscale
