// Package metrics counts what the coordinator and the gateway tell their
// observers, and shows it: to Prometheus as text, to the status page as a sample
// for each of the last minutes' seconds and as the last things recovery has done.
//
// What is counted while it happens is counted in series that were looked up
// beforehand, for it is done between a client's statement and its answer: see
// BenchmarkStatement. What is a state (connections, slots, what is prepared) is
// read when somebody asks.
//
// No label has values that clients choose: a series that is made stays.
package metrics
