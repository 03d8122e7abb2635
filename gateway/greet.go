package gateway

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgpact/pgpact/participant"
)

// greet starts the session as Postgres does after authentication: settings from
// the start-up packet, ParameterStatus, BackendKeyData, ReadyForQuery. An error
// is FATAL to the client.
func (s *session) greet() error {
	values, err := startupSettings(s.client.startup)
	if err != nil {
		return err
	}
	// A session without a name must not show the name of the gateway.
	if _, named := values["application_name"]; !named {
		values["application_name"] = ""
	}
	s.routing.user = s.gw.roleOf(s.user()) // whom $user in the search path stands for there
	start, err := s.startGreeting(values)
	if err != nil {
		return err
	}
	values[isolationDefault] = start.isolation // in a node's spelling
	s.startupValues = values
	s.startup = participant.NewSettings(values)
	s.settings = s.startup
	parameters := start.parameters
	s.reported.initial = parameters
	s.settingsKey = "\x00" // other than any
	s.settingsChanged()
	own := map[string]string{
		"application_name": values["application_name"], "session_authorization": s.user(), "is_superuser": "off",
	}
	s.reported.changed = own
	names := slices.Collect(maps.Keys(parameters))
	for name := range own {
		if _, known := parameters[name]; !known {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareParameters)
	for _, name := range names {
		s.client.send(&pgproto3.ParameterStatus{Name: name, Value: s.reported.get(name)})
	}
	s.client.send(&pgproto3.BackendKeyData{ProcessID: s.client.pid, SecretKey: keyBytes(s.client.secret)})
	s.readyForQuery()
	return nil
}

// compareParameters orders parameters as Postgres reports them: whatever their
// letters' case.
func compareParameters(a, b string) int {
	return strings.Compare(strings.ToLower(a), strings.ToLower(b))
}

// user is who the client says it is.
func (s *session) user() string { return s.client.startup["user"] }

// startupSettings are the session parameters of a start-up packet. Those in
// options come first: a parameter of its own wins over them.
func startupSettings(startup map[string]string) (map[string]string, error) {
	values := map[string]string{}
	if err := parseOptions(startup["options"], values); err != nil {
		return nil, err
	}
	for name, value := range startup {
		switch name {
		case "user", "database", "options", "replication":
		default:
			values[strings.ToLower(name)] = value
		}
	}
	for name, value := range values {
		switch {
		case name == consistencyName:
			value, err := consistencyValue(value)
			if err != nil {
				return nil, err
			}
			values[name] = value
			continue
		case isOwnSetting(name):
			return nil, frontError(pgerrcode.UndefinedObject, "unrecognized configuration parameter "+strconv.Quote(name))
		case name == "role" || name == "session_authorization":
			return nil, frontError(pgerrcode.FeatureNotSupported, "setting "+strconv.Quote(name)+" is not supported through the gateway")
		}
		if err := checkValue(name, value); err != nil {
			return nil, err
		}
		if isHeld(name) {
			shown, err := heldValue(name, value)
			if err != nil {
				return nil, err
			}
			values[name] = shown
		}
	}
	return values, nil
}

// parseOptions reads -c name=value and --name=value as postgres does on its
// command line; a backslash takes the next character as it is.
func parseOptions(options string, values map[string]string) error {
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		var setting string
		switch word := words[i]; {
		case word == "-c" && i+1 < len(words):
			i++
			setting = words[i]
		case strings.HasPrefix(word, "-c") && len(word) > 2:
			setting = word[2:]
		case strings.HasPrefix(word, "--"):
			setting = word[2:]
		default:
			return frontError(pgerrcode.SyntaxError, "invalid command-line argument for server process: "+word)
		}
		name, value, found := strings.Cut(setting, "=")
		if !found {
			return frontError(pgerrcode.SyntaxError, "-c "+setting+" requires a value")
		}
		values[strings.ToLower(strings.ReplaceAll(name, "-", "_"))] = value
	}
	return nil
}

func splitOptions(options string) []string {
	var words []string
	var word strings.Builder
	inWord := false
	for i := 0; i < len(options); i++ {
		switch c := options[i]; {
		case c == '\\' && i+1 < len(options):
			i++
			word.WriteByte(options[i])
			inWord = true
		case strings.IndexByte(" \t\n\v\f\r", c) >= 0:
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}

// startGreeting is what a session with these settings begins with. A node says
// it, and refuses settings that are not valid; its answer is kept for a while.
func (s *session) startGreeting(values map[string]string) (greeting, error) {
	checked := maps.Clone(values)
	delete(checked, "application_name") // everything is valid there
	settings := s.forNodes(participant.NewSettings(checked))
	known, ok := s.gw.greetings.Get(settings.Key())
	if ok && time.Since(known.at) < greetingLife {
		return known, nil
	}
	s.interrupt.enter()
	fresh, err := s.gw.askGreeting(s.interrupt.context(), settings)
	s.interrupt.leave()
	if err == nil {
		s.gw.greetings.Add(settings.Key(), fresh)
		return fresh, nil
	}
	pgErr, _ := clientError(s.gw.roleRefused(err, s.user()))
	switch {
	case participant.SQLState(err) != "": // a node has looked at the settings
		return greeting{}, pgErr
	case ok:
		return known, nil
	case isUnreachable(err), isLost(err):
		// Nobody can be asked. What the last node said is near enough, and the
		// session may be there when a node comes back.
		return *s.gw.latest.Load(), nil
	}
	return greeting{}, pgErr
}

// greetingLife is how long a node's greeting is taken for current.
const greetingLife = time.Minute

// isolationDefault is the parameter that every session carries to its nodes,
// set by its client or not: a default of a role or database at one node, or one
// that a reload changes, would otherwise make transactions SERIALIZABLE there
// without the gateway's knowing, and nothing would refuse them at a second node.
const isolationDefault = "default_transaction_isolation"

// greeting is what a node says to a new session.
type greeting struct {
	parameters map[string]string // those that are reported
	isolation  string            // isolationDefault
	at         time.Time
}

func keyBytes(secret uint32) []byte {
	return []byte{byte(secret >> 24), byte(secret >> 16), byte(secret >> 8), byte(secret)}
}
