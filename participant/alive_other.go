//go:build !unix

package participant

import "net"

// Alive cannot be told without waiting here; the first use will show it.
func Alive(net.Conn) bool { return true }
