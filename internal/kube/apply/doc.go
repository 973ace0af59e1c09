// Package apply reconciles the objects that another object owns with their desired state, by
// server-side apply: it compares, plans, does a dry run where that matters, and writes only what
// differs. Objects that belong to somebody else are never written.
package apply
