package checker

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ServerLeaks looks at what gateways without clients still hold on a server: conn must be a superuser's, limit is how many connections
// they may keep open for the next client. To be asked again for a while: what has just ended may still be on its way out.
func ServerLeaks(ctx context.Context, conn *pgx.Conn, role string, limit int) []error {
	var errs []error
	rows, err := conn.Query(ctx, `select pid::text || ' ' || state || ' since ' || state_change || ' ' || application_name || ': ' || query
		from pg_stat_activity where usename = $1 and backend_xid is not null or usename = $1 and state like 'idle in transaction%'
		union all select 'prepared: ' || gid || ' ' || prepared from pg_prepared_xacts
		union all select (select 'connections: ' || count(*) from pg_stat_activity where usename = $1 having count(*) > $2)`, role, limit)
	if err != nil {
		return []error{err}
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[*string])
	if err != nil {
		return []error{err}
	}
	for _, line := range left {
		if line != nil {
			errs = append(errs, fmt.Errorf("leak: %s", *line))
		}
	}
	return errs
}

var createdBy = regexp.MustCompile(`(?m)^created by (\S+)`)

// Goroutines counts the goroutines of a dump, as a Go program writes it, by the function that started them.
func Goroutines(dump string) map[string]int {
	counts := map[string]int{}
	for _, found := range createdBy.FindAllStringSubmatch(dump, -1) {
		counts[found[1]]++
	}
	return counts
}

// GoroutineLeaks compares the dump of a gateway that has worked and is idle with that of one that has never worked. slack is how many
// more of a kind there may be: helpers of connections that are kept open for the next client.
func GoroutineLeaks(fresh, used string, slack map[string]int) []error {
	var errs []error
	before := Goroutines(fresh)
	if len(before) == 0 || !strings.Contains(used, "goroutine ") {
		return []error{fmt.Errorf("leak: no goroutine dump")}
	}
	for who, n := range Goroutines(used) {
		if n > before[who]+slack[who] {
			errs = append(errs, fmt.Errorf("leak: %d goroutines of %s, a gateway that has never worked has %d", n, who, before[who]))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
