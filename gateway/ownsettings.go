package gateway

import (
	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/sqlparse"
)

// Settings named pgpact.* are the gateway's own: no node hears of them.

const (
	ownPrefix         = "pgpact."
	transactionIDName = ownPrefix + "transaction_id"
	idempotencyKey    = ownPrefix + "idempotency_key"
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
	return showDescription(name)
}

// showOwn runs SHOW pgpact.transaction_id, which also makes the transaction
// tracked: its outcome can be asked for later.
func (s *session) showOwn(x *execution) error {
	name := x.st.Setting.Name
	if name == inDoubtName {
		return s.showInDoubt(x)
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
	if x.portal == nil {
		s.client.send(showDescription(name).rowDescription(nil))
	}
	s.client.send(&pgproto3.DataRow{Values: [][]byte{[]byte(t.Track().String())}})
	s.complete("SHOW")
	return nil
}

// setOwn runs SET LOCAL pgpact.idempotency_key.
func (s *session) setOwn(st *sqlparse.Statement) error {
	set := st.Setting
	switch {
	case set.Name != idempotencyKey:
		return unrecognized(set.Name)
	case !set.Local || len(set.Value) != 1:
		return withHint(sqlErrorf(pgerrcode.FeatureNotSupported, "%s belongs to one transaction", set.Name),
			"Use SET LOCAL "+set.Name+" = 'a key of your own' in a transaction block.")
	case s.block == nil:
		return sqlErrorf("25P01", "SET LOCAL %s can only be used in transaction blocks", set.Name)
	}
	key := st.Text(set.Value[0])
	if key == "" || len(key) > maxKeyLength {
		return sqlErrorf(pgerrcode.InvalidParameterValue, "%s must have 1 to %d bytes", set.Name, maxKeyLength)
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
	s.complete("SET")
	return nil
}
