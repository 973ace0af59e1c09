// Package release has the tests of what makes a release: the scripts in hack/, and the
// steps of the release workflow, which run here with stand-ins for the programs that reach
// a registry.
package release
