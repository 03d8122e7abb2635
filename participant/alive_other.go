//go:build !unix

package participant

import "net"

// alive cannot be told without waiting here; the first use will show it.
func alive(net.Conn) bool { return true }
