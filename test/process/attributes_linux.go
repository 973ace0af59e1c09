package process

import "syscall"

// attributes put a child into a process group of its own, and have the kernel
// kill it when this program dies in whatever way.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
