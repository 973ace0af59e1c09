// Package release has the tests of the release process: the scripts in hack/, and steps of
// the release workflow, which run here with fakes of the programs that reach a registry.
package release
