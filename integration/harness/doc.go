// Package harness gives integration tests a cluster (a coordinator database and several nodes), pgpact processes, and faults.
//
//	cluster := harness.NewCluster(t, harness.Options{})      // servers "coordinator", "a", "b"
//	gateway := harness.Start(t, "serve", "--config", path)   // a pgpact process, its log shown when the test fails
//	url := gateway.WaitReady(t)
//	cluster.Node("a").Kill9(t)                               // SIGKILL, as a machine that loses power
//	cluster.Node("a").Start(t)                               // same address, same data
//
// Servers are containers, made by testcontainers-go, on an image built out of the machine's own Debian packages when there is no
// registry (scripts/build-postgres-image.sh); PGPACT_TEST_POSTGRES_IMAGE names another image. Where no container engine answers, the same
// tests run on local server processes and say so loudly. PGPACT_TEST_MODE=containers or =processes decides by hand.
//
// Every server has the role pgpact, which is no superuser, and a database pgpact that it owns: pgpact needs no more, and tests that
// gave it more would not notice.
package harness
