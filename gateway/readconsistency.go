package gateway

import (
	"strings"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/sqlparse"
)

// pgpact.read_consistency says what a read of several nodes sees: every
// transaction wholly or not at all (atomic), or what each node has at its own
// moment (per_node), which costs writers nothing and needs no decision database.

const consistencyName = ownPrefix + "read_consistency"

// The values of pgpact.read_consistency.
const (
	ReadAtomic  = "atomic"
	ReadPerNode = "per_node"
)

// consistency is the value in force.
func (s *session) consistency() string {
	if value, ok := s.current().Get(consistencyName); ok {
		return value
	}
	return s.gw.cfg.ReadConsistency
}

// readsAtomically tells whether reads of several nodes see one instant of them.
func (s *session) readsAtomically() bool {
	return len(s.gw.nodes) > 1 && s.consistency() == ReadAtomic
}

// consistencyValue checks a value, as Postgres does that of an enum: in any case.
func consistencyValue(text string) (string, error) {
	switch value := strings.ToLower(text); value {
	case ReadAtomic, ReadPerNode:
		return value, nil
	}
	return "", withHint(sqlErrorf(pgerrcode.InvalidParameterValue, "invalid value for parameter %q: %q", consistencyName, text),
		"Available values: "+ReadAtomic+", "+ReadPerNode+".")
}

// setConsistency runs SET and RESET of pgpact.read_consistency.
func (s *session) setConsistency(st *sqlparse.Statement) error {
	return s.setGateways(st, consistencyName, func(text string, single bool) (string, error) {
		if !single {
			return "", sqlErrorf(pgerrcode.InvalidParameterValue, "SET %s takes only one argument", consistencyName)
		}
		return consistencyValue(text)
	})
}

// setGateways runs SET and RESET of a setting that no node hears of. It goes with
// the transaction as any setting does. read reads its value, of which single
// tells that there is only one.
func (s *session) setGateways(st *sqlparse.Statement, name string, read func(text string, single bool) (string, error)) error {
	set := st.Setting
	change := settingChange{local: set.Local, tag: "SET"}
	if st.Kind == sqlparse.Reset {
		change.tag = "RESET"
	}
	a := assignment{name: name, known: true}
	if set.Default || st.Kind == sqlparse.Reset {
		a.reset = true
	} else {
		text := ""
		if len(set.Value) == 1 {
			text = st.Text(set.Value[0])
		}
		var err error
		if a.value, err = read(text, len(set.Value) == 1); err != nil {
			return err
		}
	}
	change.assigned = []assignment{a}
	if set.Local && s.block == nil {
		s.warn(sqlError("25P01", "SET LOCAL can only be used in transaction blocks"))
	}
	return s.changeSettings(change)
}
