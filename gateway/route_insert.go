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
	at := t.PrimaryKey[0]
	if change.InsertColumns != nil {
		at = slices.Index(change.InsertColumns, key.Name)
	}
	if change.DefaultValues || at < 0 {
		return keySet{}, missingKey(t)
	}
	if change.InsertRows == nil {
		return keySet{}, refuse(refusedInsertSelect, t.String(), key.Name)
	}
	set := keySet{state: noKey}
	for _, row := range change.InsertRows {
		if at >= len(row) || row[at].Kind == sqlparse.ValueDefault {
			return keySet{}, missingKey(t)
		}
		text, verdict, err := e.key(t, key, &row[at])
		switch {
		case err != nil:
			return keySet{}, err
		case verdict == keyUnknown:
			return keySet{}, refuse(refusedKeyValue, t.String(), key.Name)
		case verdict == keyNull:
			return keySet{}, nullKey(t)
		case verdict == keyNever:
			continue
		}
		if truncatedWhenStored(text, key.Length) {
			return keySet{}, refuse(refusedTruncatedKey, t.String(), key.Name, key.TypeName)
		}
		set.add(text)
	}
	set.settle()
	return set, nil
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
