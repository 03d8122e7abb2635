// Package harness gives integration tests a cluster (a coordinator database and several nodes), pgpact processes, and faults.
//
//	cluster := harness.NewCluster(t, harness.Options{})      // servers "coordinator", "a", "b"
//	gateway := harness.Start(t, "serve", "--config", path)   // a pgpact process, its log shown when the test fails
//	url := gateway.WaitReady(t)
//	cluster.Node("a").Kill9(t)                               // SIGKILL, as a machine that loses power
//	cluster.Node("a").Start(t)                               // same address, same data
//
// # A case with several gateways and a fault
//
// A fleet is several gateways on one cluster. Each has lanes of its own to every server, so that the way between one gateway and one
// server can be broken in one direction while everything else works:
//
//	d := deploy(t, harness.Options{Nodes: []string{"a", "b"}})     // in package integration: migrated, with the tests' tables
//	fleet := harness.NewFleet(t, d.cluster, 2, "sweep_interval: 200ms")
//	one, two := fleet.Sites[0], fleet.Sites[1]
//	conn := harness.Open(t, one.URL())
//	must(t, one.Lane("b").Cut(harness.Answers))                    // b acts, one does not hear of it
//	told, err := transact(conn, move(from, -1), move(to, 1))
//	must(t, one.Lane("b").Heal())
//	harness.Eventually(t, settleBound, "in doubt", d.nothingPrepared)
//	must(t, moved(d, from, to, told == knowsCommitted))
//
// A gateway that is to die at a named moment: one.Kill9(t); one.Start(t, "--crash-at", "voted"); transact; one.Gateway().Wait(t, bound);
// two settles what is left, or one.Start(t) does. Launch instead of Start where the point is one of recovery. One that sleeps: Pause and
// Unpause. Late answers: Lane.Hold, then Heal. The decision database is harness.CoordinatorName, like any node. Faults that begin and end
// in other goroutines go through Try. With Options.SmallDisks, FillDisk and FreeDisk of a server (its data or its WAL) or of a site. Random
// choices come from Seed, histories go to Fleet.Evidence, which a failure names.
//
// Servers are containers, made by testcontainers-go, on an image built out of the machine's own Debian packages when there is no
// registry (scripts/build-postgres-image.sh); PGPACT_TEST_POSTGRES_IMAGE names another image. Where no container engine answers, the same
// tests run on local server processes and say so loudly. PGPACT_TEST_MODE=containers or =processes decides by hand.
//
// Every server has the role pgpact, which is no superuser, and a database pgpact that it owns: pgpact needs no more, and tests that
// gave it more would not notice.
package harness
