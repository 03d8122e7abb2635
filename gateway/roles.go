package gateway

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgpact/pgpact/participant"
	"github.com/pgpact/pgpact/sqlparse"
)

// Clients' roles on the nodes (docs/adr/0015). With Config.ClientRoles a
// connection that serves a client has been told SET ROLE: privileges, row-level
// security, owners of what is made and current_user are then the client's, as on
// one Postgres. The role is one of the settings that a connection must carry
// (participant.Settings), so it rides on what settings cost.
//
// SET ROLE is a boundary only as long as the client cannot run SET ROLE itself.
// What could is closed at the one place each has: SET and RESET ROLE, SET SESSION
// AUTHORIZATION (settings.go), set_config, whatever its name is written like
// (set_config.go), start-up options (greet.go), UPDATE pg_settings, DO, CREATE
// FUNCTION and PROCEDURE (refusals.go), functions that run a text
// (functions.go), and expressions that a schema change would leave in a table,
// view, domain or policy to be run later (here).

// roleOf is the role as which user's statements run on the nodes.
func (gw *Gateway) roleOf(user string) string {
	if gw.cfg.ClientRoles {
		return user
	}
	return gw.nodes[0].User()
}

// checkRole refuses names that would be no role of a client's: the gateway's own
// could change its tables, and SET ROLE understands none as "the gateway's own".
func (gw *Gateway) checkRole(user string) error {
	if !gw.cfg.ClientRoles {
		return nil
	}
	if user == "none" { // Postgres lets no role have this name
		return errNoRole(user)
	}
	for _, node := range gw.nodes {
		if node.User() == user {
			err := frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf(`role "%s" is the gateway's own`, user))
			err.Hint = "Connect as another role, which has been granted to it."
			return err
		}
	}
	return nil
}

func errNoRole(user string) *pgconn.PgError {
	return frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf(`role "%s" does not exist`, user))
}

// roleRefused turns a node's refusal to act as user into what Postgres says at a
// login; any other error is left alone.
func (gw *Gateway) roleRefused(err error, user string) error {
	if !gw.cfg.ClientRoles {
		return err
	}
	said, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok:
	case said.Message == errNoRole(user).Message:
		return errNoRole(user)
	case said.Code == pgerrcode.InsufficientPrivilege && strings.HasPrefix(said.Message, "permission denied to set role"):
		refused := frontError(pgerrcode.InvalidAuthorizationSpecification, fmt.Sprintf(`role "%s" is not permitted to log in through the gateway`, user))
		refused.Hint = fmt.Sprintf("On every node: GRANT %s TO %s.", participant.QuoteIdentifier(user), participant.QuoteIdentifier(gw.nodes[0].User()))
		return refused
	}
	return err
}

// checkLeftBehind refuses a schema change that names a function which clients may
// not call: a column's default, a check, a view or a policy would call it for
// them, unseen.
func checkLeftBehind(st *sqlparse.Statement) error {
	for name, why := range refusedFunctions {
		if sqlparse.Mentions(st.SQL, name) {
			return refuse(why, name)
		}
	}
	return nil
}
