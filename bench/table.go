package main

import (
	"fmt"
	"io"
	"math"
	"slices"
)

// median of a list that has at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func column(samples []sample, pick func(sample) float64) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = pick(s)
	}
	return values
}

// ratios of throughput, round by round: the two were measured within seconds of each other, two medians were not.
func ratios(over, under []sample) []float64 {
	ratios := make([]float64, min(len(over), len(under)))
	for i := range ratios {
		ratios[i] = over[i].tps / under[i].tps
	}
	return ratios
}

func tps(s sample) float64     { return s.tps }
func latency(s sample) float64 { return s.latency }

// printTable writes Markdown, to be pasted into an issue.
func (b *bench) printTable(out io.Writer, cells []*cell) {
	subject := "pgpact"
	if b.opts.selfTest {
		subject = "second plain"
	}
	fmt.Fprintf(out, "\n%d rounds of %d s, medians; fsync on; everything on this machine\n\n", b.opts.rounds, b.opts.seconds)
	fmt.Fprintf(out, "| %-17s | %7s | %12s | %9s | %7s | %7s | %5s | %-11s | %4s | %-4s |\n",
		"workload", "clients", subject+" tps", "plain tps", "ms", "pl. ms", "ratio", "range", "aim", "")
	fmt.Fprintln(out, "| ----------------- | ------: | -----------: | --------: | ------: | ------: | ----: | ----------- | ---: | ---- |")
	for _, c := range cells {
		if c.failure != "" {
			fmt.Fprintf(out, "| %-17s | %7d | FAILED: %s |\n", c.work.name(), c.clients, c.failure)
			continue
		}
		each := ratios(c.gateway, c.plain)
		ratio := median(each)
		aim, verdict := "", ""
		// The aims are for 16 clients.
		if c.work.aim > 0 && c.clients == 16 && !b.opts.selfTest {
			aim, verdict = fmt.Sprintf("%.2f", c.work.aim), "met"
			if math.Round(ratio*100)/100 < c.work.aim {
				verdict = "MISS"
			}
		}
		fmt.Fprintf(out, "| %-17s | %7d | %12.0f | %9.0f | %7.3f | %7.3f | %5.2f | %4.2f..%4.2f  | %4s | %-4s |\n",
			c.work.name(), c.clients, median(column(c.gateway, tps)), median(column(c.plain, tps)),
			median(column(c.gateway, latency)), median(column(c.plain, latency)), ratio, slices.Min(each), slices.Max(each), aim, verdict)
	}
}

// printSecured is the table of -secure: the ratios without and with, and what the securing costs each side. The aims are for
// trusted clients and are judged by the other table.
func (b *bench) printSecured(out io.Writer, cells []*cell) {
	fmt.Fprintf(out, "\n%d rounds of %d s, medians; fsync on; everything on this machine\n", b.opts.rounds, b.opts.seconds)
	fmt.Fprintf(out, "open: everybody trusted, no TLS; secured: SCRAM-SHA-256, TLS, the client's own role, a least-privilege gateway\n\n")
	fmt.Fprintf(out, "| %-17s | %7s | %10s | %-10s | %13s | %-10s | %13s | %-10s | %13s | %10s | %10s | %10s | %10s |\n", "workload", "clients", "open ratio", "range",
		"secured ratio", "range", "secured/open", "range", "plain's s./o.", "pgpact tps", "plain tps", "s. pgpact", "s. plain")
	fmt.Fprintln(out, "| ----------------- | ------: | ---------: | ---------- | ------------: | ---------- | ------------: | ---------- "+
		"| ------------: | ---------: | ---------: | ---------: | ---------: |")
	for _, c := range cells {
		if c.failure != "" {
			fmt.Fprintf(out, "| %-17s | %7d | FAILED: %s |\n", c.work.name(), c.clients, c.failure)
			continue
		}
		open, secured := ratios(c.gateway, c.plain), ratios(c.securedGateway, c.securedPlain)
		cost, plainCost := ratios(c.securedGateway, c.gateway), ratios(c.securedPlain, c.plain)
		fmt.Fprintf(out, "| %-17s | %7d | %10.2f | %s | %13.2f | %s | %13.2f | %s | %13.2f | %10.0f | %10.0f | %10.0f | %10.0f |\n", c.work.name(), c.clients,
			median(open), span(open), median(secured), span(secured), median(cost), span(cost), median(plainCost),
			median(column(c.gateway, tps)), median(column(c.plain, tps)), median(column(c.securedGateway, tps)), median(column(c.securedPlain, tps)))
	}
}

func span(ratios []float64) string {
	return fmt.Sprintf("%4.2f..%4.2f", slices.Min(ratios), slices.Max(ratios))
}
