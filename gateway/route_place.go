package gateway

import (
	"slices"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// evaluation is the routing of one execution of one statement.
//
// The rules, in the order in which they are tried (DESIGN section 6):
//
//  1. What nobody may do is refused: our own relations, functions that harm.
//  2. Something unknown: any node, which will say so.
//  3. No sharded table: any node.
//  4. Every sharded table held to the same one key value: the key's node, and
//     any SQL, for the rows it can touch are all there.
//  5. One mention of one table and nothing else: every node that owns one of
//     the keys, or all nodes, as long as their rows need only be put one after
//     the other. An INSERT's rows go each to its own node.
//  6. An UPDATE or DELETE that names no sharded table but its target: as rule 5,
//     for what it does to a row follows from this row and from what is the same
//     on every node. An INSERT that copies the shard keys of one table: every
//     node copies its own rows.
//  7. The rest is refused.
//
// A claim in the facts that is not used costs an answer; one that is wrongly
// used costs rows. In doubt a key is unknown.
type evaluation struct {
	catalog   *Catalog
	placement *Placement
	st        *sqlparse.Statement
	bound     *boundValues
	session   *routeSession
	fresh     bool // the catalog was read after the statement came

	// unknown: st names something that the catalog does not know, or knew
	// differently from node to node. It is worth another reading.
	unknown bool
	use     functionUse

	// tables are the relations of st.Tables, nil for those not sharded; sets
	// are what their shard keys are held to. The arrays spare the heap for
	// statements of a few tables, which nearly all are.
	tables      []*Table
	sets        []keySet
	tablesArray [4]*Table
	setsArray   [4]keySet
	sharded     int // how many of tables are not nil
	main        int // the last of them
	// all are tables with the reference tables among them.
	all        []*Table
	allArray   [4]*Table
	references int // how many of all these are
	// copied is the table whose shard key an INSERT ... SELECT copies into its
	// target's, -1 for none.
	copied int
}

func (e *evaluation) route() (route, error) {
	if err := e.resolve(); err != nil {
		return route{}, err
	}
	var err error
	if e.use, err = judgeFunctions(e.st.Functions, e.catalog, e.session); err != nil {
		return route{}, err
	}
	result := route{writes: e.st.Writes || e.st.Locking || e.use.writes, taints: e.use.taints}
	if e.use.unknown && !e.fresh {
		e.unknown = true
	}
	if e.unknown {
		result.anyNode = true
		return result, nil
	}
	if e.references > 0 {
		var done bool
		if result, done, err = e.routeReferences(result); done || err != nil {
			return result, err
		}
	}
	if e.st.CurrentOf != "" {
		return e.routeCurrentOf(result)
	}
	if err := e.checkChanges(); err != nil {
		return route{}, err
	}
	e.copied = -1
	if e.uneven() {
		result.anyNode = true
		return result, nil
	}
	if e.sharded == 0 {
		if err := e.unplaced(); err != nil {
			return route{}, err
		}
		result.anyNode = true
		return result, nil
	}
	if err := e.hold(); err != nil {
		return route{}, err
	}
	return e.place(result)
}

// onlyNode: with one node everything belongs there, and nothing has to be
// combined.
func (e *evaluation) onlyNode() bool { return len(e.placement.nodes) == 1 }

// resolve finds the relations that st names and refuses those that cannot be
// used.
func (e *evaluation) resolve() error {
	e.tables, e.all = e.tablesArray[:0], e.allArray[:0]
	var refused error
	for i := range e.st.Tables {
		mention := &e.st.Tables[i]
		found := e.catalog.lookup(mention.Schema, mention.Name, e.session)
		switch found.kind {
		case unknownRelation:
			e.unknown = true
		case ownRelation:
			return refuse(refusedOwn, ownSchema, mention.Name)
		case systemRelation:
			if mention.Target {
				return refuse(refusedSystemWrite, mention.Name)
			}
		case userRelation:
			if found.table.differs && !e.fresh {
				e.unknown = true
			} else if why := found.table.unusable; why != nil && refused == nil {
				copied := *why // a session may add to it
				refused = &copied
			}
			e.all = append(e.all, found.table)
			if found.table.Reference {
				e.references++
				found.table = nil // its rows have no place
			} else {
				e.sharded, e.main = e.sharded+1, i
			}
			e.tables = append(e.tables, found.table)
			continue
		}
		e.tables, e.all = append(e.tables, nil), append(e.all, nil)
	}
	if e.unknown {
		return nil
	}
	return refused
}

// routeCurrentOf: WHERE CURRENT OF names a row of the node that holds the
// cursor. A cursor that does not exist is any node's to complain of.
func (e *evaluation) routeCurrentOf(result route) (route, error) {
	if err := e.checkChanges(); err != nil {
		return route{}, err
	}
	if e.session.cursor != nil {
		switch node, exists := e.session.cursor(e.st.CurrentOf); {
		case node != nil:
			result.nodes = []*participant.Node{node}
			return result, nil
		case exists:
			return route{}, refuse(refusedNoCursor, e.st.CurrentOf)
		}
	}
	result.anyNode = true
	return result, nil
}

// place chooses the nodes, once it is known what the keys are held to.
func (e *evaluation) place(result route) (route, error) {
	if e.session.explain {
		result.keys = e.keyInfos()
	}
	if e.onlyNode() {
		result.nodes = e.placement.single[0]
		return result, nil
	}
	if e.alone() || e.changesOnly() {
		return e.placeAlone(result)
	}
	if e.copiesKeys() {
		return e.placeCopy(result)
	}
	var found string
	have := -1 // the table that found is a key of
	for i, t := range e.tables {
		if t == nil {
			continue
		}
		switch set := &e.sets[i]; set.state {
		case noKey:
			// The statement touches no row of this table, on any node.
		case oneKey:
			if have >= 0 && found != set.first {
				other := e.tables[have]
				return route{}, refuse(refusedDifferentKeys, other, other.key().Name, found, t, t.key().Name, set.first)
			}
			have, found = i, set.first
		default:
			if isSelect(e.st) {
				return e.placeQuery(result, i)
			}
			return route{}, refuse(refusedNoSingleKey, e.shape(), t, t.key().Name)
		}
	}
	if have < 0 {
		result.anyNode = true
		return result, nil
	}
	result.nodes = e.placement.single[e.placement.indexFor(found)]
	return result, nil
}

// alone: one mention of one table, so that every row of the result comes from
// one row of one node. What an INSERT writes is said by its rows.
func (e *evaluation) alone() bool {
	st := e.st
	return len(st.Tables) == 1 && !st.Join && !st.Subquery && !st.CTE && !st.SetOperation
}

// placeAlone is rule 5, and rule 4 for the statements that are most frequent.
func (e *evaluation) placeAlone(result route) (route, error) {
	set := &e.sets[e.main]
	switch set.state {
	case noKey:
		result.anyNode = true
		return result, nil
	case oneKey:
		result.nodes = e.placement.single[e.placement.indexFor(set.first)]
		return result, nil
	case manyKeys:
		result.nodes = e.nodesOf(set.all)
	case anyKey:
		result.nodes = e.placement.nodes
	}
	if len(result.nodes) == 1 {
		return result, nil
	}
	if isSelect(e.st) {
		return e.placeSelect(result)
	}
	if err := e.checkMerge(); err != nil {
		return route{}, err
	}
	if e.st.Kind == sqlparse.Insert {
		return e.splitRows(result)
	}
	return result, nil
}

// nodesOf are the nodes that own the keys.
func (e *evaluation) nodesOf(keys []string) []*participant.Node {
	owns := make([]bool, len(e.placement.nodes))
	count := 0
	for _, key := range keys {
		if i := e.placement.indexFor(key); !owns[i] {
			owns[i] = true
			if count++; count == len(owns) {
				return e.placement.nodes
			}
		}
	}
	if count == 1 {
		return e.placement.single[slices.Index(owns, true)]
	}
	nodes := make([]*participant.Node, 0, count)
	for i, owned := range owns {
		if owned {
			nodes = append(nodes, e.placement.nodes[i])
		}
	}
	return nodes
}

// checkMerge refuses what cannot be had by running the statement on each node
// and putting the rows and tags together.
func (e *evaluation) checkMerge() error {
	if e.use.needsKey != nil {
		return refuse(*e.use.needsKey, e.use.needsKeyName)
	}
	what := ""
	switch {
	case e.changesOnly() && !e.alone():
		if e.use.volatileName == "" {
			return nil // the shapes are those of subqueries that are the same everywhere
		}
		what = e.use.volatileName + "() in a subquery"
	case e.use.aggregate != "" && !e.st.Window:
		what = e.use.aggregate + "()"
	case e.st.Window:
		what = "a window function"
	case e.st.GroupBy:
		what = "GROUP BY"
	case e.st.Having:
		what = "HAVING"
	case e.st.Distinct:
		what = "DISTINCT"
	case e.st.OrderBy:
		what = "ORDER BY"
	case e.st.Limit:
		what = "LIMIT"
	}
	if what == "" {
		return nil
	}
	t := e.tables[e.main]
	return refuse(refusedCombination, what, fill("The statement is not held to one value of the shard key \"%[2]s\" of table %[1]s.", []any{t, t.key().Name}),
		"Hold the shard key to one value, or combine the rows in the client.")
}

// shape names what keeps the statement from being split, for the refusal.
func (e *evaluation) shape() string {
	switch {
	case e.st.Join:
		return "a join"
	case e.st.SetOperation:
		return "a set operation"
	case e.st.CTE:
		return "WITH"
	case e.st.Subquery:
		return "a subquery"
	}
	return "a statement with several tables"
}

// keyInfos tells EXPLAIN what place goes by.
func (e *evaluation) keyInfos() []keyInfo {
	var infos []keyInfo
	for i, t := range e.tables {
		if t == nil {
			continue
		}
		if e.sets[i].state == anyKey {
			infos = append(infos, keyInfo{table: t})
		}
		for _, key := range e.sets[i].keys() {
			infos = append(infos, keyInfo{
				table: t, key: key, bucket: Bucket(key, e.placement.Buckets()), node: e.placement.NodeFor(key),
			})
		}
	}
	return infos
}
