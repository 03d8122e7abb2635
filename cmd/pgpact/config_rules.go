package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/pgpact/pgpact/gateway"
)

// readRules reads the list of rules.
func (r *configReader) readRules(pair *ast.MappingValueNode) {
	at := r.at(pair.Key.GetToken())
	r.cfg.origins["rules"] = at
	items, ok := pair.Value.(*ast.SequenceNode)
	if !ok {
		r.refuse(at, "rules", "must be a list: lines that begin with `- type: hostssl`")
		return
	}
	for i, item := range items.Values {
		prefix := fmt.Sprintf("rules[%d]", i)
		pairs, ok := pairsOf(item)
		if !ok {
			r.refuse(r.at(item.GetToken()), prefix, "must have the keys type, database, user, address and method")
			continue
		}
		r.cfg.origins[prefix] = r.at(pairs[0].Key.GetToken())
		r.readRule(prefix, pairs)
	}
}

// readRule reads one rule. All its keys but clientcert must be written: what is
// left out by mistake must not let anybody in.
func (r *configReader) readRule(prefix string, pairs []*ast.MappingValueNode) {
	rule, method := gateway.Rule{}, ""
	fields := []field{
		{key: "type", set: oneOf(&rule.Type, gateway.AnyHost, gateway.OnlyTLS, gateway.WithoutTLS)},
		{key: "database", set: names(&rule.Databases)},
		{key: "user", set: names(&rule.Users)},
		{key: "address", set: func(text string) (err error) {
			rule.Addresses, err = gateway.ParseAddresses(text)
			return err
		}},
		{key: "method", set: oneOf(&method, gateway.Methods...)},
		{key: "clientcert", set: oneOf(&rule.ClientCert, gateway.VerifyCA, gateway.VerifyFull)},
	}
	given := map[string]bool{}
	for _, pair := range pairs {
		name := pair.Key.GetToken().Value
		given[name] = true
		f, ok := findField(fields, name)
		if !ok {
			r.refuse(r.at(pair.Key.GetToken()), prefix+"."+name, "unknown key%s", suggestion(name, fields))
			continue
		}
		r.readValue(f, prefix+"."+name, pair)
	}
	for _, f := range fields {
		if !given[f.key] && f.key != "clientcert" {
			r.refuse(r.cfg.origins[prefix], prefix+"."+f.key, "is missing")
		}
	}
	rule.Method = gateway.Method(method)
	r.cfg.Rules = append(r.cfg.Rules, rule)
}

// names reads a list of names, of which there must be one.
func names(target *[]string) func(string) error {
	return func(text string) error {
		if err := list(target)(text); err != nil {
			return err
		}
		if len(*target) == 0 {
			return fmt.Errorf("must be all, a name, or a list of names")
		}
		return nil
	}
}

// readVerifiers reads the users' passwords: names and what `pgpact user` has
// made of their passwords.
func (r *configReader) readVerifiers(pair *ast.MappingValueNode) {
	at := r.at(pair.Key.GetToken())
	r.cfg.origins["verifiers"] = at
	pairs, ok := pairsOf(pair.Value)
	if !ok {
		r.refuse(at, "verifiers", "must be a mapping, with lines like the ones that `pgpact user NAME` prints")
		return
	}
	r.cfg.Verifiers = map[string]gateway.Verifier{}
	for _, p := range pairs {
		user := p.Key.GetToken().Value
		r.readValue(field{secret: true, set: func(text string) error {
			v, err := gateway.ParseVerifier(text)
			r.cfg.Verifiers[user] = v
			return err
		}}, "verifiers."+user, p)
	}
}

// rules are the rules in force: those that are written, or the one that auth
// stands for, or its default.
func (cfg *Config) rules() []gateway.Rule {
	if len(cfg.Rules) > 0 {
		return cfg.Rules
	}
	rule := gateway.TrustEverybody
	rule.Method = gateway.Method(cfg.Auth)
	switch {
	case cfg.Auth == "" && isLoopback(cfg.Listen):
		rule.Method = gateway.Trust
	case cfg.Auth == "":
		rule.Method = gateway.ScramSHA256
	}
	return []gateway.Rule{rule}
}

// Whose privileges the statements of clients have on the nodes.
const rolesOfClients, roleOfGateway = "client", "gateway"

// clientRoles tells whether clients act as their own roles on the nodes: by
// default when somebody has to prove a name. Names that anybody may give protect
// nothing.
func (cfg *Config) clientRoles() bool {
	if cfg.Roles != "" {
		return cfg.Roles == rolesOfClients
	}
	return slices.ContainsFunc(cfg.rules(), func(r gateway.Rule) bool { return r.Method == gateway.ScramSHA256 || r.Method == gateway.Cert })
}

// checkRules checks that the rules, whoever wrote them, can let somebody in.
func (r *configReader) checkRules() {
	cfg := r.cfg
	if len(cfg.Rules) > 0 && cfg.Auth != "" {
		r.refuse(r.where("auth"), "auth", "cannot be written together with rules, which say it for each connection")
	}
	for i, rule := range cfg.rules() {
		at, key := r.where("auth"), "auth"
		if len(cfg.Rules) > 0 {
			key = fmt.Sprintf("rules[%d]", i)
			at = r.where(key)
		} else if cfg.Auth == "" {
			at = r.where("listen")
		}
		switch {
		case rule.Type == gateway.OnlyTLS && cfg.TLS.Cert == "" && !r.refusedAt("tls.cert"):
			r.refuse(at, key, "hostssl needs tls.cert and tls.key: without them no connection is encrypted")
		case (rule.Method == gateway.Cert || rule.ClientCert != "") && cfg.TLS.ClientCA == "":
			r.refuse(at, key, "client certificates need tls.client_ca: the authorities that they are judged by")
		case rule.Method == gateway.Cert && rule.Type == gateway.WithoutTLS:
			r.refuse(at, key, "the method cert cannot be used without TLS")
		case rule.Method == gateway.ScramSHA256 && len(cfg.Verifiers) == 0 && cfg.AuthQuery == "" && !r.refusedBelow("verifiers"):
			r.refuse(at, key, "scram-sha-256 (the default when listen can be reached from other machines) needs passwords: "+
				"write verifiers, which `pgpact user NAME` makes, or auth_query")
		default:
			continue
		}
		return
	}
}

// refusedBelow tells whether something in the mapping has been refused already.
func (r *configReader) refusedBelow(key string) bool {
	for _, err := range r.errs {
		if refused, ok := err.(*configError); ok && strings.HasPrefix(refused.key, key) { //nolint:errorlint // ours, unwrapped
			return true
		}
	}
	return false
}

// inspectRules names what lets clients in without proof, or in the clear.
func (in *inspection) inspectRules(f *findings) {
	reachable := !isLoopback(in.cfg.Listen)
	for i, rule := range in.cfg.rules() {
		where := fmt.Sprintf("rules[%d]", i)
		if len(in.cfg.Rules) == 0 {
			where = "auth"
			if in.cfg.Auth == "" {
				where = "auth, which is not written,"
			}
		}
		switch {
		case rule.Method == gateway.Trust && reachable:
			f.add(warning, "%s trusts %s: they come in under any name that they give, from other machines too", where, whom(rule))
		case rule.Method == gateway.Trust && len(in.cfg.Rules) == 0 && in.cfg.Auth == "":
			// The default of a gateway that only its own machine can reach.
		case rule.Method == gateway.Trust:
			f.add(note, "%s trusts %s: they come in under any name that they give", where, whom(rule))
		case reachable && rule.Method != gateway.Reject && rule.Type != gateway.OnlyTLS:
			f.add(note, "%s lets clients in without TLS: what they ask and are answered can be read on the way; type: hostssl demands it", where)
		}
	}
}

func whom(rule gateway.Rule) string {
	who := "everybody"
	if len(rule.Users) > 0 && rule.Users[0] != "all" {
		who = "the users " + strings.Join(rule.Users, ", ")
	}
	if len(rule.Addresses) > 0 {
		who += " from " + rule.Addresses[0].String()
	}
	return who
}
