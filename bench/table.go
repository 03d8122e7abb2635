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

// ratios are gateway to plain, round by round: the two were measured within seconds of each other, two medians were not.
func (c *cell) ratios() []float64 {
	ratios := make([]float64, min(len(c.gateway), len(c.plain)))
	for i := range ratios {
		ratios[i] = c.gateway[i].tps / c.plain[i].tps
	}
	return ratios
}

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
		tps, latency := func(s sample) float64 { return s.tps }, func(s sample) float64 { return s.latency }
		ratios := c.ratios()
		ratio := median(ratios)
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
			median(column(c.gateway, latency)), median(column(c.plain, latency)), ratio, slices.Min(ratios), slices.Max(ratios), aim, verdict)
	}
}
