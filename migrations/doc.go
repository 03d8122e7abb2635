// Package migrations brings the databases to the schema that pgpact works with: the coordinator's (the
// decision log) and every node's (branch records, the node's identity and the product's tables). See DESIGN
// section 4 for what the tables mean; the comments in the SQL files say why they look as they do.
//
// The SQL files are embedded and applied by goose, each in a transaction of its own, under an advisory lock,
// so that several gateways may migrate at the same time. The migrating role owns everything it makes; it
// needs CREATE on the database and on schema public (the database's owner has both) and is no superuser.
//
// Every lock a migration waits for is bounded by lock_timeout. A prepared transaction that is in doubt keeps
// its locks, and an ALTER TABLE that waited for them would make every later transaction wait behind itself:
// better to fail, say who holds the lock, and be run again.
package migrations
