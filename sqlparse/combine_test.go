package sqlparse

import (
	"errors"
	"strings"
	"testing"
)

// combineLookup knows a table accounts(id, balance, city) sharded by id.
func combineLookup() *Lookup {
	return &Lookup{
		Column:   func(name string) bool { return name == "id" || name == "balance" || name == "city" },
		Key:      func(ref []string) bool { return ref[len(ref)-1] == "id" || ref[len(ref)-1] == "*" },
		ColumnOf: func(_, _, _ string) bool { return true },
		Aggregate: func(f Function) (bool, bool) {
			return strings.Contains(" sum count avg min max string_agg ", " "+f.Name+" "), true
		},
	}
}

// What each node is asked, and what one node makes of it.
func TestCombine(t *testing.T) {
	for _, test := range []struct{ sql, names, node, final string }{
		{"SELECT * FROM accounts ORDER BY id LIMIT 10 OFFSET $1", "id balance", "SELECT * FROM accounts ORDER BY id LIMIT $2", ""},
		{"SELECT * FROM accounts ORDER BY lower(id) DESC, 2", "id balance",
			"SELECT *, lower(id) AS pgpact_sort_1 FROM accounts ORDER BY pgpact_sort_1 DESC, 2", ""},
		{"SELECT id FROM accounts ORDER BY id FETCH FIRST 3 ROWS WITH TIES", "id", "SELECT id FROM accounts ORDER BY id FETCH FIRST $2 ROWS WITH TIES", ""},
		{"SELECT count(*) FROM accounts", "count", "SELECT count(*) AS pgpact_1 FROM accounts",
			"SELECT COALESCE(pg_catalog.sum(pgpact.pgpact_1), 0)::bigint AS count FROM ROWS FROM (pg_catalog.unnest($2) ) pgpact(pgpact_1)"},
		{"SELECT city c, avg(balance) FROM accounts a WHERE a.id > 'x' GROUP BY a.city HAVING count(*) > 1 ORDER BY c", "c avg",
			"SELECT a.city AS pgpact_1, pg_catalog.sum(balance) AS pgpact_2, pg_catalog.count(balance) AS pgpact_3, count(*) AS pgpact_4 FROM accounts a WHERE a.id > 'x' GROUP BY 1",
			"SELECT pgpact.pgpact_1 AS c, pg_catalog.sum(pgpact.pgpact_2) OPERATOR(pg_catalog./) pg_catalog.sum(pgpact.pgpact_3) AS avg FROM ROWS FROM (pg_catalog.unnest($2) , pg_catalog.unnest($3) , pg_catalog.unnest($4) , pg_catalog.unnest($5) ) pgpact(pgpact_1, pgpact_2, pgpact_3, pgpact_4) GROUP BY pgpact.pgpact_1 HAVING COALESCE(pg_catalog.sum(pgpact.pgpact_4), 0)::bigint > 1 ORDER BY 1"},
		{"SELECT DISTINCT city FROM accounts", "city", "SELECT DISTINCT city AS pgpact_1 FROM accounts",
			"SELECT DISTINCT pgpact.pgpact_1 AS city FROM ROWS FROM (pg_catalog.unnest($2) ) pgpact(pgpact_1)"},
		{"SELECT id, string_agg(city, ',') FROM accounts GROUP BY id", "id string_agg", "SELECT id, string_agg(city, ',') FROM accounts GROUP BY id", ""},
		{"SELECT string_agg(city, ',') FROM accounts", "string_agg", "refused string_agg()", ""},
		{"SELECT city FROM accounts GROUP BY balance", "city", `refused column "city" outside of GROUP BY`, ""},
		{"SELECT id FROM accounts LIMIT 1 + 1", "id", "refused LIMIT with an expression", ""},
		{"SELECT (SELECT count(x)) FROM accounts", "count", "refused an aggregate in a subquery", ""},
		{"SELECT row_number() OVER () FROM accounts", "row_number", "refused a window function", ""},
		{"SELECT id FROM accounts UNION SELECT 'x'", "id", "refused a set operation", ""},
	} {
		names := strings.Fields(test.names)
		direct := make([]bool, len(names))
		for i := range direct {
			direct[i] = true
		}
		c, err := Combine(test.sql, 1, &Outline{Names: names, Direct: direct}, combineLookup())
		var final string
		if why, ok := errors.AsType[*NotCombined](err); ok {
			c = &Combination{Node: "refused " + why.What}
		} else if err != nil {
			t.Fatalf("%s: %v", test.sql, err)
		} else if c.Aggregated {
			types := make([]uint32, len(c.Partials))
			for i := range types {
				types[i] = oidInt8
			}
			if final, err = c.Final(types, make([]bool, len(types))); err != nil {
				t.Fatalf("%s: %v", test.sql, err)
			}
		}
		if c.Node != test.node || final != test.final {
			t.Errorf("%s\n node %s\n want %s\nfinal %s\n want %s", test.sql, c.Node, test.node, final, test.final)
		}
	}
}
