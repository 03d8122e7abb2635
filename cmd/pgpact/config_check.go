package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// checkWhole checks what no key can know alone.
func (r *configReader) checkWhole() {
	cfg := r.cfg
	if cfg.AdminListen != "" && cfg.AdminListen == cfg.Listen {
		r.refuse(r.where("admin_listen"), "admin_listen", "is where clients are served (listen); it needs an address of its own")
	}
	if cfg.Coordinator.URL == "" && !r.refusedAt("coordinator.url") {
		r.refuse(r.where("coordinator.url"), "coordinator.url", "is missing: the address of the database that remembers decisions")
	}
	// A transaction that is still being decided must not be presumed aborted.
	if longest := cfg.PrepareTimeout + cfg.DecisionTimeout; cfg.InDoubtTimeout <= longest {
		r.refuse(r.where("in_doubt_timeout"), "in_doubt_timeout",
			"must be longer than prepare_timeout and decision_timeout together (%s)", longest)
	}
	if cfg.KeyRetention < cfg.Retention {
		r.refuse(r.where("key_retention"), "key_retention", "must be at least retention (%s)", cfg.Retention)
	}
	r.checkTLS()
	r.checkRules()
	r.checkNodes()
}

func (r *configReader) checkNodes() {
	cfg := r.cfg
	if len(cfg.Nodes) == 0 && !r.refusedAt("nodes") {
		r.refuse(r.where("nodes"), "nodes", "at least one node is needed")
	}
	if len(cfg.Nodes) > cfg.Buckets {
		r.refuse(r.where("buckets"), "buckets", "must be at least the number of nodes, which is %d", len(cfg.Nodes))
	}
	names, variables, addresses := map[string]int{}, map[string]string{}, map[string]string{}
	for i, node := range cfg.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		if first, taken := names[node.Name]; taken {
			r.refuse(r.where(key+".name"), key+".name", "%q is already the name of nodes[%d]", node.Name, first)
			continue
		}
		names[node.Name] = i
		// a-b and a_b would be one PGPACT_NODES_A_B_URL.
		if other, taken := variables[envName(node.Name)]; taken {
			r.refuse(r.where(key+".name"), key+".name", "%q and %q have the same environment variable", node.Name, other)
		}
		variables[envName(node.Name)] = node.Name
		if node.URL == "" {
			if !r.refusedAt(key + ".url") {
				r.refuse(r.cfg.origins[key], key+".url", "is missing: the address of node %q (or set %s)",
					node.Name, envName("nodes."+node.Name+".url"))
			}
			continue
		}
		address := addressOf(node.URL)
		if other, taken := addresses[address]; taken {
			r.refuse(r.where(key+".url"), key+".url", "is the database of node %q (%s): two nodes cannot be one", other, address)
			continue
		}
		addresses[address] = node.Name
	}
}

// addressOf is host:port/database of an address that validURL has accepted,
// fit for people to read.
func addressOf(url string) string {
	conf, err := pgconn.ParseConfig(url)
	if err != nil {
		return "?"
	}
	return net.JoinHostPort(conf.Host, strconv.Itoa(int(conf.Port))) + "/" + conf.Database
}

// where is the place of a key, or the file when the key is not written.
func (r *configReader) where(key string) origin {
	if at, ok := r.cfg.origins[key]; ok {
		return at
	}
	return origin{file: r.cfg.file}
}

// refusedAt tells whether the key has been refused already: that it has no
// value is then no news.
func (r *configReader) refusedAt(key string) bool {
	for _, err := range r.errs {
		if refused, ok := errors.AsType[*configError](err); ok && refused.key == key {
			return true
		}
	}
	return false
}
