// Package status is how a controller reports on an object: conditions, the classes of errors
// and what follows from each, events, and the patch of the status. It knows no kind.
package status
