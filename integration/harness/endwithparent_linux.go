package harness

import (
	"os/exec"
	"syscall"
)

// endWithParent: a test run that is killed, or that panics on its timeout, leaves no gateway behind.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
