package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgerrcode"
)

// maxName is the longest name Postgres knows (NAMEDATALEN - 1).
const maxName = 63

// checkStartup checks what psql-wire would close without a word about: the
// protocol's major version (minors are negotiated) and the layout, name and
// value pairs and one terminator as the very last byte. A second SSLRequest or
// GSSENCRequest ends here as well, as an odd version, as in Postgres.
func checkStartup(body []byte) error {
	version := binary.BigEndian.Uint32(body)
	if version>>16 != protocolMajor {
		return frontError(pgerrcode.FeatureNotSupported, fmt.Sprintf(
			"unsupported frontend protocol %d.%d: server supports 3.0 to 3.0", version>>16, version&0xffff))
	}
	for rest := body[4:]; len(rest) > 0; {
		if rest[0] == 0 {
			if len(rest) == 1 {
				return nil
			}
			break
		}
		_, afterName, _ := bytes.Cut(rest, []byte{0})
		_, afterValue, found := bytes.Cut(afterName, []byte{0})
		if !found {
			break
		}
		rest = afterValue
	}
	return frontError(pgerrcode.ProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
}

// cleanStartup brings startup parameters into the form that sessions expect, by
// the rules of Postgres's ProcessStartupPacket: user is required, database
// defaults to it, overlong names are cut. It refuses what we do not serve.
func cleanStartup(startup map[string]string) error {
	for name, value := range startup {
		if !utf8.ValidString(name) {
			return invalidEncoding(name)
		}
		if utf8.ValidString(value) {
			continue
		}
		if name != "application_name" {
			return invalidEncoding(value)
		}
		startup[name] = cleanASCII(value) // Postgres takes any bytes here, and cleans them
	}
	if err := checkReplication(startup); err != nil {
		return err
	}
	if startup["user"] == "" {
		return frontError(pgerrcode.InvalidAuthorizationSpecification, "no PostgreSQL user name specified in startup packet")
	}
	if startup["database"] == "" {
		startup["database"] = startup["user"]
	}
	startup["user"] = cutName(startup["user"])
	startup["database"] = cutName(startup["database"])
	return nil
}

// checkReplication refuses walsender connections and removes the parameter,
// which is none that a node could be given.
func checkReplication(startup map[string]string) error {
	value, present := startup["replication"]
	if !present {
		return nil
	}
	delete(startup, "replication")
	wanted, valid := parseBool(value)
	switch {
	case value == "database" || wanted:
		err := frontError(pgerrcode.FeatureNotSupported, "replication connections are not supported by the gateway")
		err.Hint = "Connect to a node."
		return err
	case !valid:
		err := frontError(pgerrcode.InvalidParameterValue, fmt.Sprintf("invalid value for parameter %q: %q", "replication", value))
		err.Hint = `Valid values are: "false", 0, "true", 1, "database".`
		return err
	}
	return nil
}

// parseBool reads a boolean as Postgres does: any unambiguous beginning of true,
// false, yes, no, on, off, or 1 or 0, in any case.
func parseBool(s string) (value, valid bool) {
	s = strings.ToLower(s)
	switch {
	case s == "":
		return false, false
	case s == "1", s == "on", strings.HasPrefix("true", s), strings.HasPrefix("yes", s):
		return true, true
	case s == "0", s == "of", s == "off", strings.HasPrefix("false", s), strings.HasPrefix("no", s):
		return false, true
	}
	return false, false
}

func invalidEncoding(s string) error {
	var first strings.Builder
	for i, r := range s {
		if _, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&first, " 0x%02x", s[i])
			break
		}
	}
	return frontError(pgerrcode.CharacterNotInRepertoire, `invalid byte sequence for encoding "UTF8":`+first.String())
}

// cleanASCII replaces what is not printable ASCII by '?', as Postgres 13 to 15
// do in application_name.
func cleanASCII(s string) string {
	clean := []byte(s)
	for i, b := range clean {
		if b < ' ' || b > '~' {
			clean[i] = '?'
		}
	}
	return string(clean)
}

// cutName cuts a name to Postgres's length, at a character boundary.
func cutName(name string) string {
	if len(name) <= maxName {
		return name
	}
	cut := maxName
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut]
}
