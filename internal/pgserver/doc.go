//go:build unix

// Package pgserver runs Postgres servers as child processes of this program, for `pgpact demo` and for
// tests. It is no part of the gateway: nothing that serves clients in production imports it.
//
// A [Set] is a directory with several servers in it:
//
//	DIR/lock            held by flock while somebody uses the directory
//	DIR/template/       one initdb'd cluster, never started
//	DIR/NAME/           the data directory of server NAME, first a copy of the template
//	DIR/NAME.log        what the server wrote to standard error
//	DIR/NAME.port       the loopback port it had last, used again when it is free
//
// What is promised about processes, because a test or a demo that leaves servers behind is worse than none:
//
//   - Every server is in a process group of its own, so Ctrl-C in the terminal reaches only us and we
//     decide in which order things stop.
//   - On Linux the kernel tells the server to shut down when we are killed (PR_SET_PDEATHSIG).
//   - A server that was left behind all the same is found by the next Start on that directory and stopped
//     first, politely and then not; a pid file that names somebody else's process is not believed.
//   - Postgres refuses to run as root, so root's children drop to another account (see account.go).
//
// Servers listen on 127.0.0.1 only and trust whoever connects: whoever may run processes on this machine
// is superuser in them. That is right for a demo and for tests, and for nothing else.
package pgserver
