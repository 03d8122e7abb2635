// Bench compares pgpact with one plain Postgres on this machine, with pgbench, and prints a table of ratios: `make bench`.
//
// What makes the ratios worth something: both sides have the same settings (compared before anything is measured; fsync is on), the same rows,
// the same scripts, the same random seeds; every cell is measured on both sides one right after the other, in the opposite order in every
// second round, and the median of the rounds' ratios is what counts, because the machine's speed drifts but hardly within seconds.
// Clients, gateway and servers share the machine's cores, as in the aims of the project.
//
// `-self-test` puts a second plain Postgres where the gateway would be: its ratios should all be 1, and how far they are from it is the
// error of this bench on this machine.
//
// `-secure` measures two pairs in every round: beside the one above, in which everybody is trusted, a gateway as it should be run (secured.go)
// and the same plain server reached in the same way.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	seconds   int
	rounds    int
	clients   []int
	workloads string
	accounts  int
	binary    string
	selfTest  bool
	reads     bool
	secure    bool
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	opts, err := parseOptions(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	if err := run(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	var opts options
	var clients string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&opts.seconds, "seconds", 5, "seconds per cell, side and round")
	flags.IntVar(&opts.rounds, "rounds", 3, "rounds; the median counts")
	flags.StringVar(&clients, "clients", "1,16,64", "numbers of clients")
	flags.StringVar(&opts.workloads, "workloads", "", "only workloads whose name contains this, like select or transfer/simple")
	flags.IntVar(&opts.accounts, "accounts", 0, "accounts, spread over the nodes by their hash (default 20,000, with -reads 1,008)")
	flags.StringVar(&opts.binary, "pgpact", "bin/pgpact", "the program to measure")
	flags.BoolVar(&opts.selfTest, "self-test", false, "measure a second plain Postgres instead of pgpact: all ratios should be 1")
	flags.BoolVar(&opts.reads, "reads", false, "measure instead what readers of all balances cost, atomic against per_node")
	flags.BoolVar(&opts.secure, "secure", false, "measure beside each pair a second one with SCRAM, TLS, a role of the client's own and a least-privilege gateway")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if opts.accounts == 0 {
		opts.accounts = map[bool]int{true: readsAccounts, false: 20_000}[opts.reads]
	}
	if why := opts.contradiction(); why != "" {
		fmt.Fprintln(os.Stderr, "bench:", why)
		return opts, fmt.Errorf("bad flags")
	}
	for field := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "bench: -clients wants numbers with commas, not %q\n", clients)
			return opts, fmt.Errorf("bad -clients")
		}
		opts.clients = append(opts.clients, n)
	}
	if opts.seconds < 1 || opts.rounds < 1 || opts.accounts < 100 {
		fmt.Fprintln(os.Stderr, "bench: -seconds and -rounds must be at least 1, -accounts at least 100")
		return opts, fmt.Errorf("bad numbers")
	}
	return opts, nil
}

// contradiction says which flags do not go together; "" if all do.
func (o options) contradiction() string {
	switch {
	case o.reads && o.selfTest:
		return "-self-test has no gateway to read through, so it does not go with -reads"
	case o.secure && o.selfTest:
		return "-self-test has no gateway to secure, so it does not go with -secure"
	case o.secure && o.reads:
		return "-reads compares two ways of reading through one gateway, so it does not go with -secure"
	}
	return ""
}

func run(ctx context.Context, opts options) (err error) {
	dir, err := os.MkdirTemp("", "pgpact-bench-")
	if err != nil {
		return err
	}
	// Root's Postgres runs as another account, which has to pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	b, err := setUp(ctx, dir, opts)
	if b != nil {
		defer func() {
			if stopErr := b.tearDown(); err == nil {
				err = stopErr
			}
		}()
	}
	if err != nil {
		return err
	}
	if opts.reads {
		return b.measureReads(ctx, os.Stdout)
	}
	cells := b.cells()
	sides := 2
	if opts.secure {
		sides = 4
	}
	estimate := time.Duration(len(cells)*opts.rounds*sides*(opts.seconds+1)) * time.Second
	fmt.Fprintf(os.Stderr, "%d cells, %d rounds of %d s on each of %d sides: about %v\n", len(cells), opts.rounds, opts.seconds, sides, estimate)
	for round := range opts.rounds {
		for _, cell := range cells {
			if err := b.measure(ctx, cell, round); err != nil {
				return err
			}
		}
	}
	if opts.secure {
		b.printSecured(os.Stdout, cells)
	} else {
		b.printTable(os.Stdout, cells)
	}
	for _, cell := range cells {
		if cell.failure != "" {
			return fmt.Errorf("%s with %d clients: %s", cell.work.name(), cell.clients, cell.failure)
		}
	}
	return nil
}
