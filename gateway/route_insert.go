package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// checkChanges refuses what would change a shard key: the row could belong to
// another node afterwards. SET id = id is refused as well, for telling it from
// the harmful ones is not worth a rule of its own.
func (e *evaluation) checkChanges() error {
	if len(e.st.Changes) == 0 && e.st.Kind != sqlparse.Select {
		return refuse(refusedOther) // what it changes must be known
	}
	for i := range e.st.Changes {
		change := &e.st.Changes[i]
		if change.Kind == sqlparse.Merge {
			return refuse(refusedMerge)
		}
		t := e.tables[change.Table]
		if t != nil && change.Conflict != nil {
			if err := e.checkConflict(t, change.Conflict); err != nil {
				return err
			}
		}
		if t != nil && slices.Contains(change.Assigned, t.key().Name) {
			return refuse(refusedKeyChange, t.String(), t.key().Name)
		}
	}
	return nil
}

// insertInto is the INSERT whose target is the i-th relation, nil for none.
func (e *evaluation) insertInto(i int) *sqlparse.Change {
	if !e.st.Tables[i].Target {
		return nil
	}
	for c := range e.st.Changes {
		if change := &e.st.Changes[c]; change.Table == i && change.Kind == sqlparse.Insert {
			return change
		}
	}
	return nil
}

// insertKeys are the shard keys of the rows that an INSERT brings.
//
// That a BEFORE trigger of the node changes the key is not seen here; pgpact
// check counts the rows that are not on their node.
func (e *evaluation) insertKeys(t *Table, change *sqlparse.Change) (keySet, error) {
	key := t.key()
	if e.onlyNode() {
		return keySet{}, nil
	}
	if key.Identity && strings.Contains(strings.ToLower(e.st.SQL), "overriding") &&
		!strings.Contains(strings.ToLower(e.st.SQL), "overriding system") {
		return keySet{}, refuse(refusedOverriding, t.String(), key.Name)
	}
	at := keyInRow(t, change)
	if change.DefaultValues || at < 0 {
		return keySet{}, missingKey(t)
	}
	if change.InsertRows == nil {
		return e.copiedKeys(t, change, at)
	}
	set := keySet{state: noKey}
	for _, row := range change.InsertRows {
		if at >= len(row) || row[at].Kind == sqlparse.ValueDefault {
			return keySet{}, missingKey(t)
		}
		text, ok, err := e.insertKey(t, &row[at])
		if err != nil {
			return keySet{}, err
		}
		if ok {
			set.add(text)
		}
	}
	set.settle()
	return set, nil
}

// keyInRow is where in a row of an INSERT the shard key stands, -1 when it
// is not given.
func keyInRow(t *Table, change *sqlparse.Change) int {
	if change.InsertColumns != nil {
		return slices.Index(change.InsertColumns, t.key().Name)
	}
	return t.PrimaryKey[0]
}

// insertKey is the shard key of a row that an INSERT brings; ok is false for a
// value that every node refuses.
func (e *evaluation) insertKey(t *Table, v *sqlparse.Value) (text string, ok bool, err error) {
	key := t.key()
	text, verdict, err := e.key(t, key, v)
	switch {
	case err != nil:
		return "", false, err
	case verdict == keyUnknown:
		return "", false, refuse(refusedKeyValue, t.String(), key.Name)
	case verdict == keyNull:
		return "", false, nullKey(t)
	case verdict == keyNever:
		return "", false, nil
	case truncatedWhenStored(text, key.Length):
		return "", false, refuse(refusedTruncatedKey, t.String(), key.Name, key.TypeName)
	}
	return text, true, nil
}

// missingKey is the error for a row without a shard key.
func missingKey(t *Table) error {
	key := t.key()
	switch {
	case key.isSequence():
		return refuse(refusedKeySequence, t.String(), key.Name)
	case key.hasDefault():
		return refuse(refusedKeyDefault, t.String(), key.Name)
	}
	return nullKey(t)
}

// nullKey is Postgres's error for a row without a value in its primary key. It
// is raised here because there is no node that the row belongs to: one with a
// BEFORE trigger that makes up a key would keep it.
func nullKey(t *Table) error {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "23502",
		Message:    fmt.Sprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint", t.key().Name, t.Name),
		SchemaName: t.Schema, TableName: t.Name, ColumnName: t.key().Name,
	}
}
