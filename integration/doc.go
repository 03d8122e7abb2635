// Package integration tests pgpact from the outside: real Postgres servers in containers, real pgpact processes, real clients, real
// crashes. Nobody imports it, and it is a module of its own, so that testcontainers and docker's client stay out of pgpact's go.mod.
//
// The servers and the processes come from package harness; the tests here hold what they show; package checker judges what
// clients have recorded against what servers show (chaos_test.go, and cases of single faults). Every test is bound in time, keeps its
// data in a directory of its own, and leaves nothing running.
package integration
