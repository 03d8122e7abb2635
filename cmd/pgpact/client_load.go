package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// loadOptions are the flags of `pgpact load`.
type loadOptions struct {
	client
	table  string
	key    string
	header bool
	rows   int
}

func newLoadCommand() *cobra.Command {
	o := &loadOptions{}
	cmd := &cobra.Command{
		Use:   "load FILE.csv --table TABLE",
		Short: "Load a CSV file in chunks, each exactly once; a load that was killed is resumed",
		Long: "Loads a CSV file, as Postgres's COPY reads it, in chunks of whole rows. Each chunk is one\n" +
			"distributed transaction with an idempotency key, made of what the file holds, the table and\n" +
			"the chunk's place in the file. So a load that has been interrupted in any way is resumed by\n" +
			"the same command: what is there already is passed over, and no row is loaded twice. The same\n" +
			"--chunk belongs to that, and gateways remember keys for their key_retention (7 days).\n" +
			"A chunk that is refused ends the load; those before it are loaded. To load a file that has\n" +
			"been loaded once more, give the second load a name with --key.\n" + exitCodesHelp,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.table == "":
				return usageErrorf(cmd, "--table must name a table")
			case o.rows < 1:
				return usageErrorf(cmd, "--chunk must be at least 1")
			case o.key == "" && cmd.Flags().Changed("key"):
				return usageErrorf(cmd, "--key must not be empty")
			}
			if err := o.open(cmd); err != nil {
				return err
			}
			defer o.drop()
			return o.load(cmd, args[0])
		},
	}
	o.flags(cmd, "a chunk")
	cmd.Flags().StringVar(&o.table, "table", "accounts", "table to load into")
	cmd.Flags().StringVar(&o.key, "key", "", "a name of this load, beside the file's contents; only needed to load the same file twice")
	cmd.Flags().BoolVar(&o.header, "header", false, "the first line of the file names the columns (default: all columns in the table's order)")
	cmd.Flags().IntVar(&o.rows, "chunk", 5000, "`ROWS` in a transaction")
	return cmd
}

// loadResult is what --json prints.
type loadResult struct {
	Command  string  `json:"command"`
	Status   string  `json:"status"` // as of clientResult
	Table    string  `json:"table"`
	Loaded   int64   `json:"loaded"`       // rows, by this run
	Already  int64   `json:"already_done"` // rows that an earlier run had loaded
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
	SQLState string  `json:"sqlstate,omitempty"`
}

func (o *loadOptions) load(cmd *cobra.Command, path string) error {
	file, err := openCSV(path, o.header)
	if err != nil {
		return err
	}
	defer file.close()
	began, bar := time.Now(), newProgress(cmd.ErrOrStderr(), file.size)
	result := loadResult{Command: "load", Status: "done", Table: o.table}
	err = o.loadChunks(cmd.Context(), file, bar, &result)
	bar.end()
	result.Seconds = time.Since(began).Seconds()
	if err != nil {
		result.Status, result.Error, result.SQLState = describeError(err)
	} else if result.Loaded == 0 && result.Already > 0 {
		result.Status = "already done"
	}
	if o.asJSON {
		return errors.Join(writeJSON(cmd.OutOrStdout(), result), err)
	}
	line := fmt.Sprintf("%s: %d rows loaded into %s in %.1f s (%.0f rows/s)", result.Status, result.Loaded, o.table,
		result.Seconds, float64(result.Loaded)/max(result.Seconds, 0.001))
	if result.Already > 0 {
		line += fmt.Sprintf(", %d rows had been loaded before", result.Already)
	}
	fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}

// loadChunks loads one chunk after the other, so that those of an earlier run
// are the first ones.
func (o *loadOptions) loadChunks(ctx context.Context, file *csvFile, bar *progress, result *loadResult) error {
	copySQL := o.copySQL(file.columns)
	name := sha256.Sum256(fmt.Appendf(nil, "%q %q %x", o.key, copySQL, file.digest))
	for resuming := true; ; {
		chunk, err := file.next(o.rows)
		if err != nil {
			return &codedError{exitFailure, err}
		}
		if chunk.rows == 0 {
			return o.unchanged(file)
		}
		t := &task{client: &o.client, key: fmt.Sprintf("load/%x/%d", name[:20], chunk.offset), do: copyChunk(copySQL, chunk)}
		already := false
		if resuming {
			already = o.isLoaded(ctx, t)
			resuming = already
		}
		if !already {
			if _, already, err = t.run(ctx); err != nil {
				return fmt.Errorf("in the chunk from line %d on: %w", chunk.line, err)
			}
		}
		if already {
			result.Already += int64(chunk.rows)
		} else {
			result.Loaded += int64(chunk.rows)
		}
		bar.advance(chunk.offset+int64(len(chunk.data)), result.Loaded)
	}
}

// unchanged holds the file against what the keys of its chunks were made of.
func (o *loadOptions) unchanged(file *csvFile) error {
	if file.changed() {
		return &codedError{exitFailure, errors.New("the file has been changed while it was loaded: its rows are loaded as they were read, " +
			"and loading it again would load them again")}
	}
	return nil
}

// isLoaded asks, which is cheaper than trying. That it cannot be asked says
// nothing: then the chunk is tried.
func (o *loadOptions) isLoaded(ctx context.Context, t *task) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	conn, err := o.connection(ctx)
	if err != nil {
		return false
	}
	id, err := t.committed(ctx, conn)
	if err != nil {
		o.drop()
	}
	return id != ""
}

func (o *loadOptions) copySQL(columns []string) string {
	sql := "COPY " + pgx.Identifier(strings.Split(o.table, ".")).Sanitize()
	if len(columns) > 0 {
		quoted := make([]string, len(columns))
		for i, column := range columns {
			quoted[i] = pgx.Identifier{column}.Sanitize()
		}
		sql += " (" + strings.Join(quoted, ", ") + ")"
	}
	return sql + " FROM STDIN (FORMAT csv)"
}

// copyChunk loads a chunk. A server that has read another number of rows than
// we have counted has read something else (a line \. ends the data): refused.
func copyChunk(sql string, chunk csvChunk) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(chunk.data), sql)
		if err == nil && tag.RowsAffected() != int64(chunk.rows) {
			err = refusalf("these are %d rows, and Postgres has read %d: look for a line that is only \\. and for line ends that differ",
				chunk.rows, tag.RowsAffected())
		}
		return err
	}
}
