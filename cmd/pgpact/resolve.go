package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgpact/pgpact/coordinator"
	"github.com/pgpact/pgpact/participant"
)

const resolveLong = `Finishes one transaction by hand: ID as pgpact transactions prints it, or the GID
of one of its branches, as pg_prepared_xacts on a node does. Gateways finish
transactions by themselves; this is for when none can.

Without a flag it does what is decided. --abort aborts a transaction without a
decision, --commit commits one whose decision was lost and whose branch record on a
node proves that it had one. What would contradict a decision, or what a node
shows, is refused, and so is what nobody can know to be right.

--force does it all the same. That is recorded with the decision, before anything is
done, and pgpact check names the transaction from then on. It can leave a transaction
committed on one node and rolled back on another: the command says what may be
broken. With a GID, an outcome forced against a decision is forced on that branch
alone.`

// resolveOptions are the flags of resolve.
type resolveOptions struct {
	path                 string
	commit, abort, force bool
}

func newResolveCommand() *cobra.Command {
	var opts resolveOptions
	cmd := &cobra.Command{
		Use:   "resolve --config FILE ID|GID",
		Short: "Finish one transaction by hand",
		Long:  resolveLong,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, clusterID, err := opts.resolution(args[0])
			if err != nil {
				return &usageError{command: cmd.CommandPath(), err: err}
			}
			cfg, err := readConfig(cmd, opts.path)
			if err != nil {
				return err
			}
			return resolve(cmd, cfg, r, clusterID)
		},
	}
	configFlag(cmd, &opts.path)
	cmd.Flags().BoolVar(&opts.commit, "commit", false, "commit it, if that contradicts nothing")
	cmd.Flags().BoolVar(&opts.abort, "abort", false, "abort it, if that contradicts nothing")
	cmd.Flags().BoolVar(&opts.force, "force", false, "do it even so (with --commit or --abort)")
	return cmd
}

// resolution reads the command line. clusterID is the GID's, empty for an ID.
func (o *resolveOptions) resolution(name string) (r coordinator.Resolution, clusterID string, err error) {
	switch {
	case o.commit && o.abort:
		return r, "", errors.New("--commit and --abort exclude each other")
	case o.force && !o.commit && !o.abort:
		return r, "", errors.New("--force needs --commit or --abort")
	case o.commit:
		r.Wish = coordinator.Commit
	case o.abort:
		r.Wish = coordinator.Abort
	}
	r.Force, r.By = o.force, whoami()
	if gid, ok := participant.ParseGID(name); ok {
		r.ID, r.Node = gid.ID, gid.Node
		return r, gid.Cluster, nil
	}
	if r.ID, err = participant.ParseID(name); err != nil {
		return r, "", fmt.Errorf("%q is neither a transaction id (EPOCH/SEQUENCE) nor a gid (pgpact/CLUSTER/EPOCH/SEQUENCE/NODE)", name)
	}
	return r, "", nil
}

// whoami names the person for the record.
func whoami() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); err == nil && name == "" {
		name = u.Username
	}
	host, _ := os.Hostname() // a nameless machine has no name to record
	return cmp.Or(name, "somebody") + "@" + cmp.Or(host, "somewhere")
}

func resolve(cmd *cobra.Command, cfg *Config, r coordinator.Resolution, clusterID string) error {
	c, err := readCluster(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	if clusterID != "" && clusterID != c.id {
		return fmt.Errorf("the gid belongs to cluster %s, and this is cluster %s", clusterID, c.id)
	}
	var done coordinator.Resolved
	err = withCoordinator(cfg, c.id, newLogger(cmd.ErrOrStderr(), cfg), func(co *coordinator.Coordinator) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*cfg.ConnectTimeout+cfg.FinishTimeout)
		defer cancel()
		var err error
		done, err = co.Resolve(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	return writeResolved(cmd.OutOrStdout(), r, done)
}

func writeResolved(w io.Writer, r coordinator.Resolution, done coordinator.Resolved) error {
	fmt.Fprintf(w, "transaction %s: %s\n", r.ID, done.Decision)
	if len(done.Finished) > 0 {
		fmt.Fprintf(w, "finished on node %s\n", strings.Join(done.Finished, ", "))
	} else {
		fmt.Fprintln(w, "no branch was left to finish where a node could be asked")
	}
	for _, line := range done.Broken {
		fmt.Fprintf(w, "MAY BE BROKEN: %s\n", line)
	}
	if len(done.Broken) > 0 {
		fmt.Fprintln(w, "This is recorded; pgpact check will keep naming it. Compare the rows of the transaction on its nodes.")
	}
	if len(done.Left) > 0 {
		return fmt.Errorf("not done on node %s; gateways go on trying", strings.Join(done.Left, ", "))
	}
	return nil
}
