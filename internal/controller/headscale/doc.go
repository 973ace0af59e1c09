// Package headscale brings a cluster to what its Headscales ask for, and says in
// their status how far that has come.
package headscale
