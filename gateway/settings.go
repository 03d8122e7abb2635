package gateway

import (
	"strings"

	"github.com/jackc/pgerrcode"

	"github.com/pgpact/pgpact/sqlparse"
)

// SET, RESET and their kin. A setting belongs to the session, not to a
// connection: it is run at a node, which knows what is valid, and remembered
// here with the value the node then shows. Whatever connection serves the
// session later carries it (participant.Settings).
//
// Inside a block a setting is transactional, as in Postgres: it is told to
// every branch, now or when it opens, and becomes the session's at COMMIT.

// performSetting runs SET, SET CONSTRAINTS and RESET.
func (s *session) performSetting(x *execution) error {
	set := x.st.Setting
	if x.st.Kind == sqlparse.SetConstraints {
		return s.changeSettings(settingChange{sql: []string{statementText(x)}, local: true, tag: "SET CONSTRAINTS"})
	}
	switch {
	case isOwnSetting(set.Name):
		return s.setOwn(x.st)
	case set.Transaction:
		return s.setTransaction(x.st)
	case isTransactionMode(set.Name):
		return s.setTransactionMode(x)
	case set.Name == "role" || set.Name == "session_authorization":
		return s.setRole(x.st)
	}
	if err := checkSetting(x.st); err != nil {
		return err
	}
	if isHeld(set.Name) {
		return s.setHeld(x.st)
	}
	return s.changeSettings(s.changeOf(x))
}

// setTransaction runs SET TRANSACTION. Whether it comes too late is for the
// nodes to say.
func (s *session) setTransaction(st *sqlparse.Statement) error {
	if st.Transaction.Snapshot != "" {
		return sqlError(pgerrcode.FeatureNotSupported, "SET TRANSACTION SNAPSHOT is not supported through the gateway")
	}
	if s.block == nil {
		s.warn(sqlError("25P01", "SET TRANSACTION can only be used in transaction blocks"))
	} else if err := s.setModes(modesOf(st.Transaction)); err != nil {
		return err
	}
	s.complete("SET")
	return nil
}

// setModes changes the characteristics of the block.
func (s *session) setModes(m modes) error {
	if m == (modes{}) {
		return nil
	}
	next := s.block.modes.with(m)
	// A block that has its snapshots has run a query: its nodes say that it is too late.
	if next.isolation == "serializable" && s.block.reads != ofAllNodes && s.block.t != nil && len(s.block.t.Branches()) > 1 {
		return errSerializable
	}
	sql := "SET TRANSACTION" + m.sql()
	if err := s.block.broadcast(sql); err != nil {
		return err
	}
	s.block.record(sql)
	s.block.modes = next
	return nil
}

// isTransactionMode tells whether a parameter is one of the transaction's
// characteristics: SET changes it for the transaction only, with or without
// LOCAL.
func isTransactionMode(name string) bool {
	return name == "transaction_isolation" || name == "transaction_read_only" || name == "transaction_deferrable"
}

func (s *session) setTransactionMode(x *execution) error {
	if s.block == nil {
		return s.changeSettings(settingChange{sql: []string{statementText(x)}, local: true, tag: "SET"})
	}
	value := ""
	if len(x.st.Setting.Value) == 1 {
		value = x.st.Text(x.st.Setting.Value[0])
	}
	m, err := modeOf(x.st.Setting.Name, value)
	if err != nil {
		return err
	}
	if err := s.setModes(m); err != nil {
		return err
	}
	s.complete("SET")
	return nil
}

// modeOf reads the value of one of the transaction's characteristics.
func modeOf(name, value string) (m modes, err error) {
	level := strings.ToLower(value)
	on, isBool := parseBool(value)
	switch {
	case name == "transaction_isolation" && isIsolationLevel(level):
		m.isolation = level
	case name == "transaction_read_only" && isBool:
		m.readOnly = &on
	case name == "transaction_deferrable" && isBool:
		m.deferrable = &on
	default:
		refused := sqlErrorf(pgerrcode.InvalidParameterValue, "invalid value for parameter %q: %q", name, value)
		if name == "transaction_isolation" {
			refused.Hint = "Available values: serializable, repeatable read, read committed, read uncommitted."
		}
		err = refused
	}
	return m, err
}

func isIsolationLevel(s string) bool {
	switch s {
	case "read uncommitted", "read committed", "repeatable read", "serializable":
		return true
	}
	return false
}

// setRole accepts what changes nothing. Anything else is refused: a role is no
// boundary on a connection that other clients use as well.
func (s *session) setRole(st *sqlparse.Statement) error {
	set, tag := st.Setting, "SET"
	if st.Kind == sqlparse.Reset {
		tag = "RESET"
	}
	none := set.Default || st.Kind == sqlparse.Reset ||
		len(set.Value) == 1 && strings.EqualFold(st.Text(set.Value[0]), "none")
	if !none {
		return errRole(set.Name)
	}
	s.complete(tag)
	return nil
}

func errRole(name string) error {
	return withHint(sqlErrorf(pgerrcode.FeatureNotSupported, "changing %q is not supported through the gateway", name),
		"Connect as the role that is wanted.")
}

// cleanEncodingName is the name as Postgres compares it: letters and digits
// only, in lower case (clean_encoding_name in src/common/encnames.c). asyncpg,
// for one, sends it in quotes.
func cleanEncodingName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			if r < '0' || r > '9' {
				return -1
			}
		}
		return r
	}, strings.ToLower(name))
}

// checkSetting refuses what would make the gateway and a node read the same
// bytes differently.
func checkSetting(st *sqlparse.Statement) error {
	set := st.Setting
	if set.Default || st.Kind == sqlparse.Reset || len(set.Value) != 1 {
		return nil
	}
	return checkValue(set.Name, st.Text(set.Value[0]))
}

// checkValue is checkSetting for a name and a value, which a start-up packet
// gives as well. SQL_ASCII means no conversion: the bytes are then UTF-8 too,
// and the node checks that.
func checkValue(name, value string) error {
	switch name {
	case "client_encoding":
		switch cleanEncodingName(value) {
		case "utf8", "unicode", "sqlascii":
			return nil
		}
		return withHint(sqlErrorf(pgerrcode.InvalidParameterValue, "client_encoding %q is not supported through the gateway", value),
			"Use UTF8.")
	case "standard_conforming_strings":
		if on, valid := parseBool(value); valid && !on {
			return sqlError(pgerrcode.FeatureNotSupported, "standard_conforming_strings = off is not supported through the gateway")
		}
	}
	return nil
}
