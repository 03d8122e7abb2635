package main

import "syscall"

// endWithParent has the kernel ask the child to end when we are gone: a demo
// that was killed leaves nothing behind.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
