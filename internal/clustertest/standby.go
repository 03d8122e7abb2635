//go:build unix

package clustertest

import (
	"context"
	"strings"
	"time"
)

// Standby follows one of a cluster's servers through a link that a test can cut.
type Standby struct {
	c      *Cluster
	server string // whose place it can take
	name   string
	link   *Proxy
}

// AddStandby gives a server of the cluster, which must have servers of its own, a streaming standby. A
// synchronous one is waited for by every commit there.
func (c *Cluster) AddStandby(server string, synchronous bool) *Standby {
	c.tb.Helper()
	s := &Standby{c: c, server: server, name: server + "-standby", link: NewProxy(c.tb, c.Address(server))}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := c.servers.AddStandby(ctx, c.servers.Server(server), s.name, s.link.listener.Addr().String()); err != nil {
		c.tb.Fatal(err)
	}
	want := "async"
	if synchronous {
		want = "sync"
		c.SuperExec(server, `ALTER SYSTEM SET synchronous_standby_names='"`+s.name+`"'`)
		c.SuperExec(server, "SELECT pg_reload_conf()")
	}
	WaitFor(c.tb, s.name+" follows", 30*time.Second, func() bool {
		return strings.Join(c.Rows(server, "SELECT sync_state FROM pg_stat_replication WHERE state='streaming'"), "") == want
	})
	return s
}

// URL names both hosts, the first server first.
func (s *Standby) URL() string {
	first := s.c.servers.Server(s.server)
	return strings.Replace(first.URL("pgpact", s.c.database), first.Addr(), first.Addr()+","+s.c.servers.Server(s.name).Addr(), 1)
}

// CatchUp waits until the standby has replayed all that the server has written.
func (s *Standby) CatchUp() {
	s.c.tb.Helper()
	lsn := s.c.Value(s.server, "SELECT pg_current_wal_insert_lsn()")
	s.c.SuperExec(s.server, "CHECKPOINT") // has what is written flushed and sent
	WaitFor(s.c.tb, s.name+" has caught up", 30*time.Second, func() bool {
		return s.c.Value(s.name, "SELECT pg_last_wal_replay_lsn() >= '"+lsn+"'") == "t"
	})
}

// Cut lets nothing more of what happens on the server reach the standby: what follows is lost in a failover.
func (s *Standby) Cut() {
	s.link.Cut()
	WaitFor(s.c.tb, s.name+" follows no more", 30*time.Second, func() bool {
		return s.c.Value(s.name, "SELECT count(*) FROM pg_stat_wal_receiver") == "0"
	})
}

// Failover kills the server and promotes the standby in its place: the cluster's functions use it from then on
// when they are given the server's name.
func (s *Standby) Failover() {
	s.c.tb.Helper()
	s.c.Kill(s.server)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	if err := s.c.servers.Server(s.name).Promote(ctx); err != nil {
		s.c.tb.Fatal(err)
	}
	if s.c.moved == nil {
		s.c.moved = map[string]string{}
	}
	s.c.moved[s.server] = s.name
}

// Return starts the former primary again, which does not know that it is one no more.
func (s *Standby) Return() {
	s.c.tb.Helper()
	if err := s.c.servers.Server(s.server).Start(context.Background()); err != nil {
		s.c.tb.Fatal(err)
	}
}
