package gateway

import (
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/sqlparse"
)

// Settings named pgpact.* are the gateway's own: no node hears of them.

const (
	ownPrefix         = "pgpact."
	transactionIDName = ownPrefix + "transaction_id"
	idempotencyKey    = ownPrefix + "idempotency_key"
	explainName       = ownPrefix + "explain"
	maxKeyLength      = 200
)

func isOwnSetting(name string) bool {
	return len(name) > len(ownPrefix) && name[:len(ownPrefix)] == ownPrefix
}

func unrecognized(name string) error {
	return sqlErrorf(pgerrcode.UndefinedObject, "unrecognized configuration parameter %q", name)
}

// ownSettingDescription describes what SHOW of a setting of ours returns.
func ownSettingDescription(name string) *description {
	if name == inDoubtName {
		return inDoubtDescription()
	}
	if name == lockWaitsName {
		return textDescription(lockWaitsColumns)
	}
	return showDescription(name)
}

// showOwn runs SHOW pgpact.transaction_id, which also makes the transaction
// tracked: its outcome can be asked for later.
func (s *session) showOwn(x *execution) error {
	name := x.st.Setting.Name
	if name == inDoubtName {
		return s.showInDoubt(x)
	}
	if name == lockWaitsName {
		return s.showLockWaits(x)
	}
	if isOwnSwitch(name) {
		s.showValue(x, map[bool]string{true: "on", false: "off"}[s.ownSwitch(name)])
		return nil
	}
	if name == consistencyName {
		s.showValue(x, s.consistency())
		return nil
	}
	if name != transactionIDName {
		return unrecognized(name)
	}
	if s.block == nil {
		return sqlErrorf("25P01", "SHOW %s can only be used in transaction blocks", name)
	}
	t, err := s.transaction()
	if err != nil {
		return err
	}
	s.showValue(x, t.Track().String())
	return nil
}

// showValue answers SHOW.
func (s *session) showValue(x *execution, value string) {
	if x.portal == nil {
		s.client.send(showDescription(x.st.Setting.Name).rowDescription(nil))
	}
	s.client.send(&pgproto3.DataRow{Values: [][]byte{[]byte(value)}})
	s.complete("SHOW")
}

// setOwn runs SET LOCAL pgpact.idempotency_key, SET of a switch and of
// pgpact.read_consistency.
func (s *session) setOwn(st *sqlparse.Statement) error {
	set := st.Setting
	switch {
	case isOwnSwitch(set.Name):
		return s.setOwnSwitch(st)
	case set.Name == consistencyName:
		return s.setConsistency(st)
	case set.Name != idempotencyKey:
		return unrecognized(set.Name)
	case !set.Local || len(set.Value) != 1:
		return withHint(sqlErrorf(pgerrcode.FeatureNotSupported, "%s belongs to one transaction", set.Name),
			"Use SET LOCAL "+set.Name+" = 'a key of your own' in a transaction block.")
	case s.block == nil:
		return sqlErrorf("25P01", "SET LOCAL %s can only be used in transaction blocks", set.Name)
	}
	if err := s.setKey(st.Text(set.Value[0])); err != nil {
		return err
	}
	s.complete("SET")
	return nil
}

// ownSwitches are settings of ours that are on unless the client has turned them
// off.
var ownSwitches = []string{explainName, retryName}

func isOwnSwitch(name string) bool { return slices.Contains(ownSwitches, name) }

func (s *session) ownSwitch(name string) bool {
	value, ok := s.current().Get(name)
	return !ok || value == "on"
}

// setOwnSwitch runs SET and RESET of a switch. It goes with the transaction as any
// setting does, but no node hears of it.
func (s *session) setOwnSwitch(st *sqlparse.Statement) error {
	name := st.Setting.Name
	return s.setGateways(st, name, func(text string, single bool) (string, error) {
		on, valid := parseBool(text)
		if !valid || !single {
			return "", sqlErrorf(pgerrcode.InvalidParameterValue, "parameter %q requires a Boolean value", name)
		}
		return map[bool]string{true: "on", false: "off"}[on], nil
	})
}

// setKey gives the block's transaction its idempotency key.
func (s *session) setKey(key string) error {
	if key == "" || len(key) > maxKeyLength {
		return sqlErrorf(pgerrcode.InvalidParameterValue, "%s must have 1 to %d bytes", idempotencyKey, maxKeyLength)
	}
	if s.block.key != "" && s.block.key != key {
		return sqlErrorf(pgerrcode.ObjectNotInPrerequisiteState, "the transaction already has the idempotency key %q", s.block.key)
	}
	t, err := s.transaction()
	if err != nil {
		return err
	}
	if err := t.SetIdempotencyKey(s.interrupt.context(), s.user(), key); err != nil {
		return err
	}
	s.block.key = key
	return nil
}
