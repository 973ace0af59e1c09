// Package status is how a controller reports on an object: conditions, the classes of errors and
// how to handle each, events, and the patch of the status. It is independent of kinds.
package status
