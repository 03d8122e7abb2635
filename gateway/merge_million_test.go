package gateway

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/internal/clustertest"
)

// TestSortedMillion: SELECT ... ORDER BY id of PGPACT_TEST_ROWS rows (100000; the
// long form is 1000000) over three nodes comes in order, without the gateway's
// memory growing by its size, and the ratio of its speed to one plain
// Postgres's is printed. The gateway runs in this process, under a memory limit
// that its garbage collector keeps to as it would in a small container.
func TestSortedMillion(t *testing.T) {
	rows := 100_000
	if n, err := strconv.Atoi(os.Getenv("PGPACT_TEST_ROWS")); err == nil {
		rows = n
	}
	servers, stop, err := clustertest.NewServers(t.Context(), 3, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	p := startDifferential(t, servers, 3)
	fill := fmt.Sprintf(`INSERT INTO items SELECT i, 'owner ' || i, i * 7 FROM generate_series(1000, %d) i`, rows+999)
	for _, sql := range []string{"TRUNCATE items", fill, "VACUUM ANALYZE items"} {
		if _, err := p.plain.Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.gateway.Exec(t.Context(), "DELETE FROM items").ReadAll(); err != nil {
		t.Fatal(err)
	}
	p.copyItems(t)
	const sql = "SELECT id, owner, price FROM items ORDER BY id"
	limit := debug.SetMemoryLimit(64 << 20)
	defer debug.SetMemoryLimit(limit)

	idle := heapInUse()
	var most atomic.Uint64
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most.Store(max(most.Load(), m.Sys-m.HeapReleased))
			}
		}
	}()
	through := readSorted(t, p.gateway, sql, rows)
	close(done)
	<-stopped
	direct := readSorted(t, p.plain, sql, rows)
	grown := int64(most.Load()) - int64(idle)
	t.Logf("%d rows: %.0f rows/s through the gateway, %.0f directly, ratio %.2f; memory idle %d MB, at most %d MB more",
		rows, float64(rows)/through.Seconds(), float64(rows)/direct.Seconds(), direct.Seconds()/through.Seconds(), idle>>20, grown>>20)
	if grown > 100<<20 {
		t.Errorf("memory has grown by %d MB", grown>>20)
	}
}

func heapInUse() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

// copyItems copies items from the plain server through the gateway.
func (p *differentialPair) copyItems(t *testing.T) {
	t.Helper()
	source, err := os.CreateTemp(t.TempDir(), "items")
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := p.plain.CopyTo(t.Context(), source, "COPY items TO STDOUT"); err != nil {
		t.Fatal(err)
	}
	if _, err := source.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.gateway.CopyFrom(t.Context(), source, "COPY items FROM STDIN"); err != nil {
		t.Fatal(err)
	}
}

// readSorted reads all rows and sees that they are in order, none missing.
func readSorted(t *testing.T, conn *pgconn.PgConn, sql string, rows int) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	start := time.Now()
	result := conn.ExecParams(ctx, sql, nil, nil, nil, nil)
	next := 1000
	for result.NextRow() {
		if id, err := strconv.Atoi(string(result.Values()[0])); err != nil || id != next {
			t.Fatalf("row %q, want %d", result.Values()[0], next)
		}
		next++
	}
	if _, err := result.Close(); err != nil {
		t.Fatal(err)
	}
	if next-1000 != rows {
		t.Fatalf("%d rows, want %d", next-1000, rows)
	}
	return time.Since(start)
}
