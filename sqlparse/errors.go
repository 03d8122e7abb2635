package sqlparse

// SyntaxError is a text that Postgres would refuse before looking anything up.
type SyntaxError struct {
	Message string // as Postgres words it
	// Position counts characters from 1 as Postgres does; 0 when Postgres
	// would send none.
	Position int
	// Code is the SQLSTATE Postgres would send: 42601 nearly always, but the
	// grammar raises a few others (0A000 for "MATCH PARTIAL not yet
	// implemented", 22021 for bytes that are no UTF-8, 54001 for a statement
	// nested too deeply).
	Code string
	Hint string // "" for none
}

func (e *SyntaxError) Error() string { return e.Message }

// SQLSTATE returns Code, or 42601 when Code is empty.
func (e *SyntaxError) SQLSTATE() string {
	if e.Code == "" {
		return codeSyntaxError
	}
	return e.Code
}

// The SQLSTATEs the raw parser can raise.
const (
	codeSyntaxError = "42601"
)
