package podrunner

import (
	"regexp"
	"strings"
)

// mounts says, for one container, which directory of this machine stands for
// each mount path.
type mounts map[string]string

// paths is what may be a path, or a URL behind its scheme.
var paths = regexp.MustCompile(`(://)?[\w/.~@+%-]+`)

// rewrite replaces every path below a mount path with the one on this machine,
// by the longest mount path that fits. A path may follow a scheme, but not a host.
func (m mounts) rewrite(text string) string {
	return paths.ReplaceAllStringFunc(text, func(found string) string {
		path := strings.TrimPrefix(found, "://")
		longest := ""
		for mountPath := range m {
			if (path == mountPath || strings.HasPrefix(path, mountPath+"/")) && len(mountPath) > len(longest) {
				longest = mountPath
			}
		}
		return strings.TrimSuffix(found, path) + m[longest] + strings.TrimPrefix(path, longest)
	})
}
