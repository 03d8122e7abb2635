package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed select.sql
var selectScript string

//go:embed update.sql
var updateScript string

//go:embed transfer.sql
var transferScript string

// workload is one script in one protocol.
type workload struct {
	kind     string // select, update, transfer
	protocol string // pgbench -M
	script   string
	aim      float64 // the project's, at 16 clients; 0: none
}

func (w workload) name() string { return w.kind + "/" + w.protocol }

// cell is one line of the table: a workload with a number of clients, and what was measured.
type cell struct {
	work    workload
	clients int

	gateway, plain               []sample // one per round
	securedGateway, securedPlain []sample // with -secure, else none
	failure                      string   // the first one; the numbers are worth nothing then
}

// sample is one run of pgbench.
type sample struct {
	tps     float64
	latency float64 // average, ms
}

func (b *bench) cells() []*cell {
	works := []workload{
		{kind: "select", protocol: "simple", script: selectScript, aim: 0.45},
		{kind: "select", protocol: "extended", script: selectScript},
		{kind: "select", protocol: "prepared", script: selectScript, aim: 0.45},
		{kind: "update", protocol: "simple", script: updateScript, aim: 0.75},
		{kind: "update", protocol: "extended", script: updateScript, aim: 0.75},
		{kind: "update", protocol: "prepared", script: updateScript, aim: 0.75},
		{kind: "transfer", protocol: "simple", script: b.transfer(), aim: 0.22},
		{kind: "transfer", protocol: "prepared", script: b.transfer(), aim: 0.22},
	}
	var cells []*cell
	for _, work := range works {
		if !strings.Contains(work.name(), b.opts.workloads) {
			continue
		}
		for _, clients := range b.opts.clients {
			cells = append(cells, &cell{work: work, clients: clients})
		}
	}
	return cells
}

// transfer puts the choice of two ids in front of the script. Both sides, always in the order first node, second node: opposite orders would
// measure deadlocks.
func (b *bench) transfer() string {
	last := len(b.keys.from) - 1
	return fmt.Sprintf("\\set i random(0, %d)\n\\set from %s\n\\set j random(0, %d)\n\\set to %s\n%s",
		last, choice("i", b.keys.from), last, choice("j", b.keys.to), transferScript)
}

// side is one of those that a cell is measured on, and where what was measured goes.
type side struct {
	url     string
	samples *[]sample
}

// sides are those of a cell in a round. What is divided by one another is measured one right after the other: with -secure, each gateway beside
// its plain Postgres, and the two gateways beside each other.
func (b *bench) sides(c *cell, round int) []side {
	sides := []side{{b.gateway, &c.gateway}, {b.plain, &c.plain}}
	if b.secured != nil {
		slices.Reverse(sides)
		sides = append(sides, side{b.secured.gateway, &c.securedGateway}, side{b.secured.plain, &c.securedPlain})
	}
	if round%2 == 1 {
		slices.Reverse(sides)
	}
	return sides
}

// measure runs one cell on all sides, in turns first.
func (b *bench) measure(ctx context.Context, c *cell, round int) error {
	if c.failure != "" {
		return nil
	}
	before, err := sum(ctx, b.nodes)
	if err != nil {
		return err
	}
	for _, side := range b.sides(c, round) {
		if err := b.measureSide(ctx, c, round, side); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.failure = err.Error()
			fmt.Fprintf(os.Stderr, "round %d  %-17s %3d clients  FAILED: %s\n", round+1, c.work.name(), c.clients, c.failure)
			return nil
		}
	}
	fmt.Fprintf(os.Stderr, "round %d  %-17s %3d clients  %s\n", round+1, c.work.name(), c.clients, pairSoFar(c.gateway, c.plain))
	if b.secured != nil {
		fmt.Fprintf(os.Stderr, "%38s  %s\n", "secured", pairSoFar(c.securedGateway, c.securedPlain))
	}
	// Fast and wrong is worth nothing: what was moved from one node must have arrived at the other.
	if c.work.kind == "transfer" {
		if after, err := sum(ctx, b.nodes); err != nil {
			return err
		} else if after != before {
			return fmt.Errorf("%s with %d clients changed the sum over the nodes from %d to %d", c.work.name(), c.clients, before, after)
		}
	}
	return nil
}

// pairSoFar is the last round of a gateway and its plain Postgres.
func pairSoFar(gateway, plain []sample) string {
	g, p := gateway[len(gateway)-1].tps, plain[len(plain)-1].tps
	return fmt.Sprintf("%9.0f tps  plain %9.0f tps  ratio %.2f", g, p, g/p)
}

// measureSide measures one side, from the same state: without the other side's checkpoint in its back, without dead rows of the cell before.
func (b *bench) measureSide(ctx context.Context, c *cell, round int, side side) error {
	for _, super := range b.super {
		err := query(ctx, super, func(conn *pgx.Conn) error {
			if _, err := conn.Exec(ctx, "vacuum public.bench_accounts"); err != nil {
				return err
			}
			_, err := conn.Exec(ctx, "checkpoint")
			return err
		})
		if err != nil {
			return err
		}
	}
	script := filepath.Join(b.dir, c.work.kind+".sql")
	if err := os.WriteFile(script, []byte(c.work.script), 0o644); err != nil {
		return err
	}
	// Over the seconds of the run: connecting, and transactions that are under way at the end.
	runCtx, cancel := context.WithTimeout(ctx, time.Duration(b.opts.seconds)*time.Second+time.Minute)
	defer cancel()
	command := exec.CommandContext(runCtx, b.pgbench, "--no-vacuum", "--file", script, "--protocol", c.work.protocol,
		"--client", strconv.Itoa(c.clients), "--jobs", strconv.Itoa(min(2, c.clients)), "--time", strconv.Itoa(b.opts.seconds),
		"--define", "accounts="+strconv.Itoa(b.opts.accounts), "--random-seed", strconv.Itoa(round+1), side.url)
	output, err := command.CombinedOutput()
	if runCtx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("pgbench hung: %s", firstLine(string(output)))
	}
	if err != nil {
		return fmt.Errorf("pgbench: %w: %s", err, firstLine(string(output)))
	}
	measured, err := parse(string(output))
	if err != nil {
		return err
	}
	*side.samples = append(*side.samples, measured)
	return nil
}

var (
	tpsLine     = regexp.MustCompile(`(?m)^tps = ([0-9.]+) \(without initial connection time\)`)
	latencyLine = regexp.MustCompile(`(?m)^latency average = ([0-9.]+) ms`)
	failedLine  = regexp.MustCompile(`(?m)^number of failed transactions: ([0-9]+)`)
)

func parse(output string) (sample, error) {
	if failed := failedLine.FindStringSubmatch(output); failed != nil && failed[1] != "0" {
		return sample{}, fmt.Errorf("%s transactions failed", failed[1])
	}
	// pgbench goes on with the clients that are left when one is thrown out, and exits 0 in some versions.
	if strings.Contains(output, "aborted") {
		return sample{}, fmt.Errorf("a client was aborted: %s", firstLine(output))
	}
	tps, latency := tpsLine.FindStringSubmatch(output), latencyLine.FindStringSubmatch(output)
	if tps == nil || latency == nil {
		return sample{}, fmt.Errorf("pgbench printed no result: %s", firstLine(output))
	}
	var s sample
	var err error
	if s.tps, err = strconv.ParseFloat(tps[1], 64); err != nil {
		return s, err
	}
	if s.latency, err = strconv.ParseFloat(latency[1], 64); err != nil {
		return s, err
	}
	if s.tps == 0 {
		return s, fmt.Errorf("no transaction was done")
	}
	return s, nil
}

// firstLine is the first line of pgbench's output that says something about a failure.
func firstLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, line := range lines {
		if strings.Contains(line, "error") || strings.Contains(line, "ERROR") || strings.Contains(line, "aborted") {
			return strings.TrimSpace(line)
		}
	}
	return lines[0]
}
