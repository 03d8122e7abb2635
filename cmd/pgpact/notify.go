package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
)

// What systemd is told, when it is systemd that has started us (sd_notify(3)):
// nothing but a datagram to the socket that it names.
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notifyReloading is RELOADING=1 with the time that Type=notify-reload wants.
func notifyReloading() string {
	message := "RELOADING=1"
	if now, ok := monotonicMicroseconds(); ok {
		message += fmt.Sprintf("\nMONOTONIC_USEC=%d", now)
	}
	return message
}

// notify tells systemd. Without one it does nothing; that it cannot be told is
// logged and harms nobody here.
func notify(logger *slog.Logger, message string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" || runtime.GOOS != "linux" {
		return
	}
	if strings.HasPrefix(socket, "@") { // the abstract namespace
		socket = "\x00" + socket[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err == nil {
		_, err = conn.Write([]byte(message))
		_ = conn.Close()
	}
	if err != nil {
		logger.Warn("systemd cannot be told", "message", message, "error", err)
	}
}
