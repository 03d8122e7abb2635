package main

import (
	"syscall"
	"unsafe"
)

// monotonicMicroseconds is CLOCK_MONOTONIC, which Go's own clock does not show.
func monotonicMicroseconds() (int64, bool) {
	const clockMonotonic = 1
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano() / 1000, errno == 0
}
