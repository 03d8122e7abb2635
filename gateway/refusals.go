package gateway

import (
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// refusal is one reason why a statement is not run. message takes arguments.
type refusal struct {
	code    string
	message string
	detail  string
	hint    string
}

var refusedStatement = refusal{"0A000", "%s is not supported through the gateway", "", ""}

// refuse makes the error that a client gets.
func refuse(why refusal, args ...any) error {
	return &pgconn.PgError{
		Severity: "ERROR", SeverityUnlocalized: "ERROR",
		Code: why.code, Message: fill(why.message, args), Detail: why.detail, Hint: why.hint,
	}
}

func fill(format string, args []any) string {
	if !strings.Contains(format, "%") {
		return format
	}
	return fmt.Sprintf(format, args...)
}
