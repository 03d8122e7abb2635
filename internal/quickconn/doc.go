// Package quickconn reads and writes sockets without telling Go's scheduler of
// every system call.
//
// A socket of package net is non-blocking: read(2) and write(2) on it return at
// once, and the runtime's poller does the waiting. Package net makes these calls
// with syscall.Read and syscall.Write all the same, which prepare for a call that
// may block: the processor is marked as one that may be taken away, and the
// runtime's monitor thread stays awake, looks every 20 us, and does take it away
// when a write over loopback has the kernel deliver the bytes, and wake the
// receiver, within the same call. With a gateway's small messages that was an
// eighth of all its CPU. Here the same calls are made with syscall.RawSyscall;
// waiting, deadlines and closing stay package net's.
package quickconn
