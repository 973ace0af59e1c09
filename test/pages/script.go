package pages

import "fmt"

// Script is what a shell runs for a block of commands. It knows the variables that the
// blocks before have set, which are in the file state, and keeps those that it sets there.
// Settings are further lines, which win over what is in the file.
func Script(commands, state string, settings ...string) string {
	var lines string
	for _, setting := range settings {
		lines += setting + "\n"
	}
	return fmt.Sprintf(`set -a
[ ! -e '%[1]s' ] || . '%[1]s'
%[2]sset -eu
%[3]s
export -p >'%[1]s'
`, state, lines, commands)
}
