// Package checker holds what clients have recorded against what servers show. Every checker returns its findings, each an error that
// names what it is about; none means that nothing was found. They judge pgpact's promises from the outside and believe nothing that a
// gateway says of itself:
//
//	Bank     transfers against journals and balances: nothing torn, lost, invented or contradicted
//	Linear   single-row operations of each key: as if done one after the other, each between its beginning and its end
//	Lists    transactions that append to lists and read them: the anomalies that docs/guarantees.md forbids
//	Log      every gid in the nodes' server logs, and every branch record, against the decisions
//	Leaks    what is left on the servers and in the gateways when all is over
//
// broken_test.go, and lists_test.go, show each of them catching what is wrong on purpose.
package checker
