//go:build unix && !linux

package process

import "syscall"

// attributes put a child into a process group of its own. That it does not
// outlive this program is the Guard's business.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
