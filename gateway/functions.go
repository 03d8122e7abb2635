package gateway

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/sqlparse"
)

// functionUse is what the functions of one statement mean for its route.
type functionUse struct {
	writes    bool // may write, or take a transaction id
	aggregate string
	// needsKey is the refusal, with needsKeyName, unless the statement is held
	// to one key: a function of the client's own, which may read and write
	// rows, or a sequence, of which every node has its own.
	needsKey     *refusal
	needsKeyName string
	taints       bool
	unknown      bool
	volatile     bool   // a call may give another value than the one before
	volatileName string // such a function of pg_catalog or of the client's, "" for none
	set          string // one that returns a set
}

// harmlessVolatile are functions of pg_catalog that are volatile because each
// call gives another value, not because they do anything: no transaction id,
// no state.
var harmlessVolatile = map[string]bool{
	"random": true, "gen_random_uuid": true, "clock_timestamp": true, "timeofday": true,
	"pg_sleep": true, "pg_sleep_for": true, "pg_sleep_until": true,
	unlockAll: true,
}

// assignsID are functions that are stable and yet give the transaction an id.
var assignsID = map[string]bool{"txid_current": true, "pg_current_xact_id": true}

// sequenceFunctions read or advance a sequence.
var sequenceFunctions = map[string]bool{
	"nextval": true, "currval": true, "setval": true, "lastval": true, "pg_sequence_last_value": true,
}

// refusedFunctions are those of pg_catalog that would harm other sessions,
// leave state behind on a connection that others use next, or do what a
// transaction over several nodes cannot. See also refusedPrefixes.
var refusedFunctions = map[string]refusal{
	"set_config": refusedSetConfig,

	"pg_terminate_backend": refusedBackend,
	"pg_cancel_backend":    refusedBackend,

	"pg_notify":          refusedNotifyFunction,
	"pg_export_snapshot": refusedSnapshot,

	// They run a query given as text.
	"query_to_xml": refusedHiddenSQL, "query_to_xmlschema": refusedHiddenSQL, "query_to_xml_and_xmlschema": refusedHiddenSQL,
	"table_to_xml": refusedHiddenSQL, "table_to_xml_and_xmlschema": refusedHiddenSQL,
	"schema_to_xml": refusedHiddenSQL, "schema_to_xml_and_xmlschema": refusedHiddenSQL,
	"database_to_xml": refusedHiddenSQL, "database_to_xml_and_xmlschema": refusedHiddenSQL,
	"cursor_to_xml": refusedHiddenSQL, "cursor_to_xmlschema": refusedHiddenSQL,
	"ts_stat": refusedHiddenSQL, "ts_rewrite": refusedHiddenSQL,

	"pg_reload_conf": refusedMaintenance, "pg_rotate_logfile": refusedMaintenance, "pg_promote": refusedMaintenance,
	"pg_switch_wal": refusedMaintenance, "pg_create_restore_point": refusedMaintenance,
	"pg_wal_replay_pause": refusedMaintenance, "pg_wal_replay_resume": refusedMaintenance,
}

// unlockAll is what pools (asyncpg's, for one) send to clean a connection.
// Nobody can hold an advisory lock through the gateway, so it finds none.
const unlockAll = "pg_advisory_unlock_all"

// refusedPrefixes are families of such functions.
var refusedPrefixes = []struct {
	prefix string
	why    refusal
}{
	{"pg_advisory_", refusedAdvisory},
	{"pg_try_advisory_", refusedAdvisory},
	{"lo_", refusedLargeObject},
	{"loread", refusedLargeObject},
	{"lowrite", refusedLargeObject},
	{"pg_logical_", refusedMaintenance},
	{"pg_replication_", refusedMaintenance},
	{"binary_upgrade_", refusedMaintenance},
}

// refusedFunction says why a function of pg_catalog is refused, or nil. An
// extension's function of such a name is not meant.
func refusedFunction(name string) *pgconn.PgError {
	if why, ok := refusedFunctions[name]; ok {
		return refuse(why, name)
	}
	if name == unlockAll {
		return nil
	}
	for i := range refusedPrefixes {
		if strings.HasPrefix(name, refusedPrefixes[i].prefix) {
			return refuse(refusedPrefixes[i].why, name)
		}
	}
	return nil
}

// judgeFunctions looks at every function a statement calls.
func judgeFunctions(functions []sqlparse.Function, catalog *Catalog, session *routeSession) (functionUse, error) {
	var use functionUse
	for _, f := range functions {
		facts, kind := catalog.function(f, session)
		if facts.volatile {
			use.volatileName = f.Name
		}
		if facts.set {
			use.set = f.Name
		}
		switch kind {
		case unknownFunction:
			// The node will say so (42883), unless it knows a function that has
			// just been made: then it is one of the client's own.
			use.unknown, use.writes, use.taints = true, true, true
			use.needKey(refusedUserFunction, functionName(f))
		case ownFunction:
			if f.Name != "bucket" { // anybody may ask where a key belongs
				return use, refuse(refusedOwnFunction, functionName(f))
			}
		case userFunction:
			if facts.aggregate {
				use.aggregate = f.Name
			}
			// Even an immutable function may write by calling others.
			use.writes = true
			if !facts.immutable {
				use.taints, use.volatile = true, true
				use.needKey(refusedUserFunction, functionName(f))
			}
		case systemFunction:
			if err := refusedFunction(f.Name); err != nil {
				return use, err
			}
			use.volatile = use.volatile || facts.volatile
			switch {
			case facts.aggregate:
				use.aggregate = f.Name
			case sequenceFunctions[f.Name]:
				use.writes = true
				use.needKey(refusedSequence, f.Name)
			case f.Name == "setseed":
				use.taints = true
			case facts.volatile && !harmlessVolatile[f.Name], assignsID[f.Name]:
				use.writes = true
			}
		}
	}
	return use, nil
}

func (use *functionUse) needKey(why refusal, name string) {
	if use.needsKey == nil {
		use.needsKey, use.needsKeyName = &why, name
	}
}

func functionName(f sqlparse.Function) string {
	if f.Schema == "" {
		return f.Name
	}
	return f.Schema + "." + f.Name
}
