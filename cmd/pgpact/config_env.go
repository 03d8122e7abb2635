package main

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// envPrefix begins the variables that override the file: PGPACT_ and the key
// in capitals, a dot as an underscore.
const envPrefix = "PGPACT_"

// otherVariables begin with PGPACT_ and are not ours to understand: those of
// the tests and scripts of this repository, the address that the client
// commands take (urlVariable), and the ones that Kubernetes makes
// in every pod for a service that is called pgpact.
var otherVariables = regexp.MustCompile(`^PGPACT_(TEST_.*|URL|POSTGRES_IMAGE|POSTGRES_BINDIR|IMAGE|LOCAL_IMAGE|` +
	`SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_.*|PORT|PORT_[0-9]+_.*)$`)

func environment(environ []string) map[string]string {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		variables[name] = value
	}
	return variables
}

// envName is the variable for a key.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// readEnvironment applies the PGPACT_ variables. One that means nothing is
// refused like an unknown key: a misspelled override that is silently ignored
// is found out at the worst time.
func (r *configReader) readEnvironment() {
	targets := map[string]func(name, value string){}
	for _, f := range r.cfg.fields() {
		targets[envName(f.key)] = r.setter(f, f.key)
	}
	for i := range r.cfg.Nodes {
		node := &r.cfg.Nodes[i]
		f, _ := findField(node.nodeFields(), "url")
		targets[envName("nodes."+node.Name+".url")] = r.setter(f, fmt.Sprintf("nodes[%d].url", i))
	}
	for _, name := range slices.Sorted(keysOf(r.environ)) {
		if !strings.HasPrefix(name, envPrefix) || otherVariables.MatchString(name) {
			continue
		}
		if set, ok := targets[name]; ok {
			set(name, r.environ[name])
			continue
		}
		r.refuse(origin{variable: name}, "", "sets no key of the configuration%s", suggestVariable(name, targets))
	}
}

func keysOf(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func (r *configReader) setter(f field, key string) func(name, value string) {
	return func(name, value string) {
		at := origin{variable: name}
		if err := f.set(value); err != nil {
			r.refuse(at, key, "%v", err)
			return
		}
		r.cfg.origins[key] = at
	}
}

func suggestVariable(name string, targets map[string]func(string, string)) string {
	var known []field
	for target := range targets {
		known = append(known, field{key: target})
	}
	slices.SortFunc(known, func(a, b field) int { return strings.Compare(a.key, b.key) })
	return suggestion(name, known)
}

// reference is a ${VARIABLE} in an address.
var reference = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${VARIABLE} in an address. A variable that is the whole
// address is taken as it is; inside a longer one its value is percent-encoded,
// so that any password fits between the colon and the @.
func (r *configReader) expand(value string) (string, error) {
	var missing []string
	expanded := reference.ReplaceAllStringFunc(value, func(ref string) string {
		name := reference.FindStringSubmatch(ref)[1]
		replacement, ok := r.environ[name]
		switch {
		case !ok:
			missing = append(missing, name)
			return ""
		case ref == value:
			return replacement
		}
		return strings.ReplaceAll(url.QueryEscape(replacement), "+", "%20")
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("the environment variable %s is not set", strings.Join(missing, ", "))
	}
	return expanded, nil
}
