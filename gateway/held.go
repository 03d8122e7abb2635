package gateway

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Settings that the gateway itself holds the session to. No node hears of them:
// a node sees only its own part of a session. Its branch may be idle while
// another node works, and a node that ended it for that would abort a
// transaction that is not idle at all; and transaction_timeout is known to
// Postgres 17 and later only.
const (
	transactionTimeout = "transaction_timeout"
	idleInTransaction  = "idle_in_transaction_session_timeout"
	idleSession        = "idle_session_timeout"
)

func isHeld(name string) bool {
	return name == transactionTimeout || name == idleInTransaction || name == idleSession
}

// forNodes is what a connection must carry for a session with these settings.
func (s *session) forNodes(settings participant.Settings) participant.Settings {
	if s.nodesKnown && s.nodesKey == settings.Key() {
		return s.nodesSettings
	}
	nodes := settings.Without(transactionTimeout).Without(explainName).Without(retryName).Without(consistencyName)
	for _, name := range []string{idleInTransaction, idleSession} {
		if _, ok := nodes.Get(name); ok {
			nodes = nodes.With(name, "0")
		}
	}
	if s.gw.cfg.ClientRoles {
		nodes = nodes.With(participant.RoleName, s.user())
	}
	s.nodesKnown, s.nodesKey, s.nodesSettings = true, settings.Key(), nodes
	return nodes
}

// setHeld runs SET and RESET of such a setting.
func (s *session) setHeld(st *sqlparse.Statement) error {
	set := st.Setting
	change := settingChange{local: set.Local, tag: "SET"}
	if st.Kind == sqlparse.Reset {
		change.tag = "RESET"
	}
	a := assignment{name: set.Name, known: true}
	switch {
	case set.Default || st.Kind == sqlparse.Reset:
		a.reset = true
	case len(set.Value) != 1:
		return sqlErrorf(pgerrcode.InvalidParameterValue, "SET %s takes only one argument", set.Name)
	default:
		var err error
		if a.value, err = heldValue(set.Name, st.Text(set.Value[0])); err != nil {
			return err
		}
	}
	change.assigned = []assignment{a}
	if err := s.quietNodes(set.Name); err != nil {
		return err
	}
	if set.Local && s.block == nil {
		s.warn(sqlError("25P01", "SET LOCAL can only be used in transaction blocks"))
	}
	return s.changeSettings(change)
}

// quietNodes keeps the nodes from ending the block's branches by a default of
// their own; later blocks take that from forNodes.
func (s *session) quietNodes(name string) error {
	if s.block == nil || name == transactionTimeout {
		return nil
	}
	sql := "SET LOCAL " + name + " = 0"
	if err := s.block.broadcast(sql); err != nil {
		return err
	}
	s.block.record(sql)
	return nil
}

// showHeld runs SHOW of such a setting.
func (s *session) showHeld(x *execution) error {
	name := x.st.Setting.Name
	value, err := s.valueHeld(name)
	if err != nil {
		return err
	}
	if x.portal == nil {
		s.client.send(showDescription(name).rowDescription(nil))
	}
	s.client.send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
	s.complete("SHOW")
	return nil
}

// valueHeld is the value in force: the session's own, or a node's default.
func (s *session) valueHeld(name string) (string, error) {
	if value, ok := s.current().Get(name); ok {
		return value, nil
	}
	if name == transactionTimeout {
		return "0", nil
	}
	b, done, err := s.branchToAsk(&statement{parsed: &sqlparse.Statement{Facts: &sqlparse.Facts{Kind: sqlparse.Show}}})
	if err != nil {
		return "", err
	}
	defer done()
	return s.ask(b, "SELECT pg_catalog.current_setting("+participant.QuoteLiteral(name)+")")
}

// timeUnits are the units of a parameter of time, in microseconds, smallest
// first.
var timeUnits = []struct {
	name  string
	micro float64
}{{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"min", 60e6}, {"h", 3600e6}, {"d", 86400e6}}

// heldValue reads a number of milliseconds as Postgres does (parse_int in
// guc.c), and spells it as Postgres shows it.
func heldValue(name, text string) (string, error) {
	invalid := sqlErrorf(pgerrcode.InvalidParameterValue, "invalid value for parameter %q: %q", name, text)
	rest := strings.TrimLeft(text, " \t\n\v\f\r")
	end := strings.IndexFunc(rest, func(r rune) bool { return !strings.ContainsRune("0123456789+-.eExXabcdfABCDF", r) })
	if end < 0 {
		end = len(rest)
	}
	var number float64
	for ; ; end-- { // the longest number that it begins with: "1d" is no hexadecimal one
		if end == 0 {
			return "", invalid
		}
		var ok bool
		if number, ok = cNumber(rest[:end]); ok {
			break
		}
	}
	if unit := strings.Trim(rest[end:], " \t\n\v\f\r"); unit != "" {
		found := false
		for _, u := range timeUnits {
			if u.name == unit {
				number, found = number*u.micro/1e3, true
			}
		}
		if !found {
			invalid.Hint = `Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".`
			return "", invalid
		}
	}
	number = math.RoundToEven(number)
	if number > math.MaxInt32 || number < math.MinInt32 {
		invalid.Hint = "Value exceeds integer range."
		return "", invalid
	}
	if number < 0 {
		return "", sqlErrorf(pgerrcode.InvalidParameterValue,
			"%d ms is outside the valid range for parameter %q (0 .. 2147483647)", int64(number), name)
	}
	return showMilliseconds(int64(number)), nil
}

// cNumber reads what C's strtol with base 0 or strtod would take whole.
func cNumber(s string) (float64, bool) {
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || digits == "" {
		return 0, false
	}
	if !strings.ContainsAny(digits, ".") && (len(digits) > 1 && digits[0] == '0' || !strings.ContainsAny(digits, "eE")) {
		base := 10
		switch {
		case strings.HasPrefix(digits, "0x"), strings.HasPrefix(digits, "0X"):
			digits, base = digits[2:], 16
		case digits[0] == '0' && len(digits) > 1:
			base = 8
		}
		n, err := strconv.ParseInt(digits, base, 64)
		if s[0] == '-' {
			n = -n
		}
		return float64(n), err == nil
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil && !strings.ContainsAny(digits, "xXpP_")
}

// showMilliseconds spells a time with the largest unit that divides it.
func showMilliseconds(n int64) string {
	if n == 0 {
		return "0"
	}
	for i := len(timeUnits) - 1; i > 0; i-- {
		if size := int64(timeUnits[i].micro / 1e3); n%size == 0 {
			return strconv.FormatInt(n/size, 10) + timeUnits[i].name
		}
	}
	return ""
}

// Bounds on what the session does now, beside the client's patience.

// errStatementTimeout is what a node says; the gateway says it while a statement
// waits for a transaction slot or a connection.
var errStatementTimeout = sqlError(pgerrcode.QueryCanceled, "canceling statement due to statement timeout")

// errTransactionTimeout ends the session, as in Postgres 17.
var errTransactionTimeout = frontError("25P04", "terminating connection due to transaction timeout")

// startClock begins to count the time of a transaction.
func (s *session) startClock() {
	if s.timeouts.transaction > 0 {
		s.clockUntil = time.Now().Add(s.timeouts.transaction)
		s.interrupt.startClock(s.timeouts.transaction)
	}
}

// stopClock: the transaction is over.
func (s *session) stopClock() {
	if !s.clockUntil.IsZero() {
		s.clockUntil = time.Time{}
		s.interrupt.stopClock()
	}
}

// timedOut tells whether the transaction's time is up.
func (s *session) timedOut() bool {
	return !s.clockUntil.IsZero() && (s.interrupt.hasExpired() || !time.Now().Before(s.clockUntil))
}

// adjustClock follows a change of transaction_timeout within a transaction: what
// is counting already goes on counting (assign_transaction_timeout).
func (s *session) adjustClock() {
	switch {
	case s.block == nil || s.state == failed:
	case s.timeouts.transaction == 0:
		s.stopClock()
	case s.clockUntil.IsZero():
		s.startClock()
	}
}
