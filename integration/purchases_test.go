package integration

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/pgpact/pgpact/integration/harness"
)

const (
	shoppers       = 32 // clients at a time
	articles       = 4
	piecesOfEach   = 60
	poorBalance    = 40 // of every fourth customer: enough for a few pieces
	purchasesEach  = 14 // at most, of a shopper
	pricePerPiece  = 5
	killAfter      = shoppers // purchases, so that the gateway dies in the thick of them
	maxRepetitions = 10
)

// shop is what the buyers were told, by the key of the purchase.
type shop struct {
	d               *deployment
	url             string
	customers, skus []string

	bought atomic.Int64 // answers that said done
	mu     sync.Mutex
	told   map[string]purchase
	errs   []string
}

// purchase is what one was, and its exit code.
type purchase struct {
	customer, sku string
	quantity      int
	code          int
	said          string
	runs          int
}

// TestPurchases: 32 people at a time run `pgpact buy` until the shelves are empty, while the gateway is killed once. Stock is never
// negative, no order is without payment, no payment without an order: by the nodes' own word.
func TestPurchases(t *testing.T) {
	s := &shop{d: deploy(t, harness.Options{Nodes: []string{"a", "b", "c"}}), told: map[string]purchase{}}
	s.stock(t)
	gateway, url := harness.Serve(t, s.d.config)
	s.url = url + "?sslmode=disable"
	seed := seedOf(t)

	var people sync.WaitGroup
	for i := range shoppers {
		people.Go(func() { s.shopper(t, rand.New(rand.NewPCG(seed, uint64(i))), i) })
	}
	harness.Eventually(t, time.Minute, "purchases before the kill", func() error {
		if n := s.bought.Load(); n < killAfter {
			return fmt.Errorf("%d purchases", n)
		}
		return nil
	})
	if exit := gateway.Kill9(t); exit.Signal != syscall.SIGKILL {
		t.Errorf("the gateway had already ended: %v", exit)
	}
	before := s.bought.Load()
	harness.Serve(t, s.d.config)
	people.Wait()
	t.Logf("%d purchases done, %d of them after the gateway was killed", s.bought.Load(), s.bought.Load()-before)
	if s.bought.Load() == before {
		t.Error("nothing was bought after the kill")
	}
	harness.Eventually(t, settleBound, "in doubt", s.d.nothingPrepared)
	s.audit(t)
	harness.Eventually(t, 40*time.Second, "decisions and branch records", s.d.recordsAgree)
}

// stock gives every node customers and the shelves their pieces, on the nodes themselves.
func (s *shop) stock(t *testing.T) {
	for _, node := range s.d.cluster.Nodes() {
		s.customers = append(s.customers, s.d.open(t, node.Name(), "buyer", 4)...)
	}
	for i := range articles {
		sku := s.d.keyOn(s.d.cluster.Nodes()[i%3].Name(), fmt.Sprintf("sku-%d", i))
		s.skus = append(s.skus, sku)
		must(t, run(s.d.cluster.Node(s.d.owner(sku)).URL(), "insert into stock values ($1, $2)", sku, piecesOfEach))
	}
	for i := 0; i < len(s.customers); i += 4 {
		must(t, run(s.d.cluster.Node(s.d.owner(s.customers[i])).URL(), "update accounts set balance = $1 where id = $2", poorBalance, s.customers[i]))
	}
}

// started is what the customer had.
func (s *shop) started(customer string) int64 {
	for i, name := range s.customers {
		if name == customer && i%4 == 0 {
			return poorBalance
		}
	}
	return startBalance
}

// shopper buys until nothing can be had any more. Whatever a purchase's command says that is not an answer, it is asked again.
func (s *shop) shopper(t *testing.T, choose *rand.Rand, number int) {
	for n := range purchasesEach {
		p := purchase{customer: s.customers[choose.IntN(len(s.customers))], sku: s.skus[choose.IntN(len(s.skus))], quantity: 1 + choose.IntN(3), code: -1}
		key := fmt.Sprintf("purchase-%d-%d", number, n)
		for ; p.runs < maxRepetitions && p.code != 0 && p.code != 1; p.runs++ {
			result := harness.Run(t, "buy", p.customer, p.sku, strconv.Itoa(p.quantity), "--price", strconv.Itoa(pricePerPiece),
				"--key", key, "--url", s.url, "--timeout", "20s")
			p.code, p.said = result.Code, result.Stdout+result.Stderr
		}
		if p.code == 0 {
			s.bought.Add(1)
		}
		s.mu.Lock()
		s.told[key] = p
		if p.code != 0 && (p.code != 1 || !strings.Contains(p.said, "has less than")) {
			s.errs = append(s.errs, fmt.Sprintf("%s: exit status %d after %d runs: %s", key, p.code, p.runs, p.said))
		}
		s.mu.Unlock()
	}
}

// counted is a row of the nodes: something by name, in two numbers.
type counted struct {
	Name        string
	First, Then int64
}

// everywhere asks all nodes themselves.
func (s *shop) everywhere(t *testing.T, query string) (all []counted) {
	for _, node := range s.d.cluster.Nodes() {
		rows, err := node.Open(t).Query(t.Context(), query)
		must(t, err)
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[counted])
		must(t, err)
		all = append(all, found...)
	}
	return all
}

// audit is three SELECTs on every node, and what the buyers were told.
func (s *shop) audit(t *testing.T) {
	for _, err := range s.errs {
		t.Error(err)
	}
	quantities := s.everywhere(t, "select sku, quantity, 0::bigint from stock")
	balances := s.everywhere(t, "select id, balance, 0::bigint from accounts")
	orders := s.everywhere(t, "select customer || ' ' || sku || ' ' || order_id, quantity, amount from orders")
	paid, taken := map[string]int64{}, map[string]int64{}
	for _, o := range orders {
		words := strings.Fields(o.Name)
		paid[words[0]] += o.Then
		taken[words[1]] += o.First
		if o.Then != o.First*pricePerPiece {
			t.Errorf("an order of %d pieces for %d", o.First, o.Then)
		}
	}
	for _, q := range quantities {
		if q.First < 0 || q.First != piecesOfEach-taken[q.Name] {
			t.Errorf("%s: %d of %d in stock, %d ordered", q.Name, q.First, piecesOfEach, taken[q.Name])
		}
	}
	for _, b := range balances {
		if spent := s.started(b.Name) - b.First; b.First < 0 || spent != paid[b.Name] {
			t.Errorf("%s has paid %d and has orders for %d", b.Name, spent, paid[b.Name])
		}
	}
	if len(quantities) != articles || len(balances) != len(s.customers) {
		t.Errorf("%d articles and %d accounts", len(quantities), len(balances))
	}
	s.compare(t, orders, quantities)
}

// compare: an order for every purchase that was told to be done, and for no other; and the test has been where it wanted to be.
func (s *shop) compare(t *testing.T, orders, quantities []counted) {
	there := map[string]bool{}
	for _, o := range orders {
		there[o.Name] = true
	}
	done, noStock, noMoney, repeated := 0, 0, 0, 0
	for key, p := range s.told {
		switch {
		case p.code == 0:
			done++
			id := strings.TrimSuffix(strings.Fields(p.said[strings.Index(p.said, "order "):])[1], ",")
			if name := p.customer + " " + p.sku + " " + id; !there[name] {
				t.Errorf("%s was told to be done, and there is no order: %s", key, p.said)
			}
		case strings.Contains(p.said, "article"):
			noStock++
		case strings.Contains(p.said, "account"):
			noMoney++
		}
		if p.runs > 1 {
			repeated++
		}
	}
	left := int64(0)
	for _, q := range quantities {
		left += q.First
	}
	t.Logf("%d purchases: %d done, %d without stock, %d without money; %d commands run again; %d pieces left", len(s.told), done, noStock, noMoney, repeated, left)
	if len(orders) != done {
		t.Errorf("%d orders, and %d purchases were told to be done", len(orders), done)
	}
	if noStock == 0 || noMoney == 0 || left > articles*2 {
		t.Errorf("stock was to run out, and the money of some: %d refused for stock, %d for money, %d pieces left", noStock, noMoney, left)
	}
}
