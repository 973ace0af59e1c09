package podrunner

import (
	"path/filepath"
	"strings"
)

// mounts says, for one container, which directory of this machine stands for
// each mount path.
type mounts map[string]string

// rewrite replaces every path below a mount path with the one on this machine.
// Each part of the text is replaced once, by the longest mount path that fits.
func (m mounts) rewrite(text string) string {
	var result strings.Builder
	for i := 0; i < len(text); {
		mountPath := ""
		if text[i] == '/' && beginsPath(text[:i]) {
			mountPath = m.longest(text[i:])
		}
		if mountPath == "" {
			result.WriteByte(text[i])
			i++
			continue
		}
		result.WriteString(m[mountPath])
		i += len(mountPath)
	}
	return result.String()
}

// longest is the longest mount path that text begins with as a whole path or as
// the directory of one, or "".
func (m mounts) longest(text string) string {
	longest := ""
	for mountPath := range m {
		rest, found := strings.CutPrefix(text, mountPath)
		if found && len(mountPath) > len(longest) && (rest == "" || rest[0] == '/' || !isPathByte(rest[0])) {
			longest = mountPath
		}
	}
	return longest
}

// beginsPath tells whether a slash after the text begins an absolute path: it is
// not within a path, nor in a URL after the host, but may follow a scheme.
func beginsPath(before string) bool {
	return before == "" || !isPathByte(before[len(before)-1]) || strings.HasSuffix(before, "://")
}

func isPathByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("/._-~@+%", b) >= 0
}

// add takes a mount into account. The last slash of a mount path means nothing.
func (m mounts) add(mountPath, dir, subPath string) {
	m[strings.TrimSuffix(mountPath, "/")] = filepath.Join(dir, subPath)
}
