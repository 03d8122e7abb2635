package gateway

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// trackedAddresses bounds the memory of the rate limit; the address longest
// unheard of is forgotten first.
const trackedAddresses = 4096

// cancelRegistry knows the keys of all sessions (BackendKeyData) and serves
// CancelRequests. Keys come from crypto/rand: whoever can guess one can stop
// other people's statements.
type cancelRegistry struct {
	perMinute int
	now       func() time.Time

	mu       sync.Mutex
	sessions map[uint32]cancelEntry
	wrong    *lru.Cache[netip.Addr, allowance]
}

type cancelEntry struct {
	secret uint32
	cancel func()
}

// allowance is what is left of an address's wrong keys at a moment.
type allowance struct {
	left float64
	at   time.Time
}

func newCancelRegistry(wrongPerMinute int) *cancelRegistry {
	wrong, err := lru.New[netip.Addr, allowance](trackedAddresses)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &cancelRegistry{
		perMinute: wrongPerMinute,
		now:       time.Now,
		sessions:  make(map[uint32]cancelEntry),
		wrong:     wrong,
	}
}

// register gives a session its key. pid is positive as the int32 that clients
// take it for, and unique among the sessions of this process.
func (r *cancelRegistry) register(cancel func()) (pid, secret uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails: it crashes the program instead
		pid = binary.BigEndian.Uint32(random[:4]) & 0x7fffffff
		secret = binary.BigEndian.Uint32(random[4:])
		if _, taken := r.sessions[pid]; pid != 0 && !taken {
			r.sessions[pid] = cancelEntry{secret: secret, cancel: cancel}
			return pid, secret
		}
	}
}

// unregister makes the key invalid. A cancel that was found before may still be
// about to be called.
func (r *cancelRegistry) unregister(pid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, pid)
}

// request serves one CancelRequest on the caller's goroutine, which belongs to
// the connection that sent it: as many run at once as there may be
// unauthenticated connections. It reports whether the key was right.
func (r *cancelRegistry) request(remote net.Addr, pid, secret uint32) bool {
	cancel := r.find(remote, pid, secret)
	if cancel == nil {
		return false
	}
	cancel()
	return true
}

func (r *cancelRegistry) find(remote net.Addr, pid, secret uint32) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.remaining(remote).left < 1 {
		return nil
	}
	entry, known := r.sessions[pid]
	// An unknown pid takes the same comparison as a known one.
	right := subtle.ConstantTimeEq(int32(entry.secret), int32(secret)) == 1
	if !known || !right {
		r.countWrong(remote)
		return nil
	}
	return entry.cancel
}

// wrongKey counts a CancelRequest whose key cannot be right.
func (r *cancelRegistry) wrongKey(remote net.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countWrong(remote)
}

func (r *cancelRegistry) countWrong(remote net.Addr) {
	a := r.remaining(remote)
	a.left = max(0, a.left-1)
	r.wrong.Add(addressOf(remote), a)
}

// remaining is the allowance of remote now: it grows back evenly to a minute's worth.
func (r *cancelRegistry) remaining(remote net.Addr) allowance {
	now := r.now()
	a, known := r.wrong.Get(addressOf(remote))
	if !known {
		return allowance{left: float64(r.perMinute), at: now}
	}
	grown := now.Sub(a.at).Minutes() * float64(r.perMinute)
	return allowance{left: min(float64(r.perMinute), a.left+grown), at: now}
}

// addressOf is the address that the rate limit counts by: the host, and for IPv6
// its /64, which is what one customer has. Unix sockets all count as one.
func addressOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}
