package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgpact/pgpact/integration/harness"
)

// TestSortedRows: SELECT ... ORDER BY id of PGPACT_TEST_ROWS rows (100,000; the long form is 1,000,000) of three nodes, by psql through a gateway
// that is a process of its own, and by psql from one plain Postgres, in turn. The rows come in order, none missing; the process never takes
// 100 MB more than when it is idle; the ratio of the medians of both speeds is printed, for the whole result at once and for a cursor
// (FETCH_COUNT).
func TestSortedRows(t *testing.T) {
	const limit = 100 << 20
	rows, rounds := 100_000, 3
	if text := os.Getenv("PGPACT_TEST_ROWS"); text != "" {
		var err error
		rows, err = strconv.Atoi(text)
		must(t, err)
		rounds = 5
	}
	d := deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}})
	gateway, url := harness.Serve(t, d.config)
	plain := d.cluster.Coordinator().URL()
	const table = "create table public.big(id bigint primary key, owner text, balance bigint)"
	must(t, run(url, table))
	must(t, run(plain, table+fmt.Sprintf("; insert into public.big select i, 'owner ' || i, i * 7 from generate_series(1, %d) i", rows)))
	copied := exec.Command("sh", "-c", `psql -Xqd "$0" -c '\copy public.big to stdout' | psql -Xqd "$1" -c '\copy public.big from stdin'`, plain, url)
	if output, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("\\copy: %v\n%s", err, output)
	}
	for _, server := range []string{plain, d.cluster.Nodes()[0].URL(), d.cluster.Nodes()[1].URL(), d.cluster.Nodes()[2].URL()} {
		must(t, run(server, "vacuum analyze public.big"))
	}

	idle := resident(gateway.PID())
	var most atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for ticker := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				ticker.Stop()
				return
			case <-ticker.C:
				most.Store(max(most.Load(), resident(gateway.PID())))
			}
		}
	}()
	readInOrder(t, url, rows)
	for _, way := range []struct{ name, fetchCount string }{{"all at once", "0"}, {"FETCH_COUNT 1000", "1000"}} {
		var through, direct []float64
		for i := range 2 * rounds { // in turn, and each as often the first of two
			if (i/2+i)%2 == 0 {
				through = append(through, sortedSpeed(t, url, way.fetchCount, rows))
			} else {
				direct = append(direct, sortedSpeed(t, plain, way.fetchCount, rows))
			}
		}
		t.Logf("%d rows, %s: %.0f rows/s through the gateway, %.0f from plain Postgres, ratio %.2f (medians of %d, in turn)",
			rows, way.name, median(through), median(direct), median(through)/median(direct), rounds)
	}
	close(stop)
	<-stopped
	t.Logf("the gateway's resident memory: idle %.1f MB, at most %.1f MB", float64(idle)/(1<<20), float64(most.Load())/(1<<20))
	if grown := most.Load() - idle; idle == 0 || grown >= limit {
		t.Errorf("the gateway's memory grew by %d MB", grown>>20)
	}
}

// resident is a process's resident memory in bytes, 0 if it cannot be read.
func resident(pid int) int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(statm), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

const sortedSelect = "select id, owner, balance from public.big order by id"

// sortedSpeed is how many rows a second psql reads.
func sortedSpeed(t *testing.T, url, fetchCount string, rows int) float64 {
	t.Helper()
	start := time.Now()
	command := exec.Command("psql", "-Xqd", url, "-v", "FETCH_COUNT="+fetchCount, "-c", sortedSelect) // its output goes to /dev/null
	var problems strings.Builder
	command.Stderr = &problems
	if err := command.Run(); err != nil {
		t.Fatalf("psql: %v\n%s", err, problems.String())
	}
	return float64(rows) / time.Since(start).Seconds()
}

// readInOrder reads all rows with psql and sees that each is there, in its place.
func readInOrder(t *testing.T, url string, rows int) {
	t.Helper()
	for _, fetchCount := range []string{"0", "777"} {
		command := exec.Command("psql", "-XAtd", url, "-v", "FETCH_COUNT="+fetchCount, "-c", sortedSelect)
		output, err := command.StdoutPipe()
		must(t, err)
		must(t, command.Start())
		next := 0
		for lines := bufio.NewScanner(output); lines.Scan(); {
			next++
			if want := fmt.Sprintf("%d|owner %[1]d|%d", next, 7*next); lines.Text() != want {
				t.Fatalf("row %q, want %q", lines.Text(), want)
			}
		}
		must(t, command.Wait())
		if next != rows {
			t.Fatalf("%d rows, want %d", next, rows)
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
