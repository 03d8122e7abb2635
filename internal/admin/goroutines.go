package admin

import (
	"net/http"
	"runtime/pprof"
)

// goroutines answers with the stacks of all goroutines, for reports of a gateway
// that hangs. They hold names and addresses, no values.
func goroutines(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = pprof.Lookup("goroutine").WriteTo(w, 2) // who asked has gone
}
