package gateway

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestKeepAliveOfClients: a peer that is gone without a word is noticed by the kernel, when FrontConfig.KeepAlive says.
func TestKeepAliveOfClients(t *testing.T) {
	seen := make(chan map[int]int, 1)
	config := FrontConfig{KeepAlive: &net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 4}}
	f := startFront(t, config, func(ctx context.Context, c *client) error {
		options := map[int]int{}
		socket, err := c.conn.raw.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = socket.Control(func(fd uintptr) {
				for _, option := range []int{syscall.TCP_KEEPIDLE, syscall.TCP_KEEPINTVL, syscall.TCP_KEEPCNT} {
					options[option], _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, option)
				}
				on, _ := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
				options[-1] = on
			})
		}
		if err != nil {
			t.Error(err)
		}
		seen <- options
		return stubSession(ctx, c)
	})
	f.mustServe()
	got := <-seen
	for option, want := range map[int]int{-1: 1, syscall.TCP_KEEPIDLE: 7, syscall.TCP_KEEPINTVL: 3, syscall.TCP_KEEPCNT: 4} {
		if got[option] != want {
			t.Errorf("socket option %d is %d, want %d", option, got[option], want)
		}
	}
}
