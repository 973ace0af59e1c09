// Package apply brings the objects that another object owns to their desired state, by
// server-side apply: it compares, plans, asks by dry run where that matters, and writes only
// what differs. Objects that belong to somebody else are never written.
package apply
