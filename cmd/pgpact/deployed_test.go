package main

import (
	"os"
	"testing"

	"github.com/goccy/go-yaml"
)

// The configurations that deploy/ brings along are ones that serve would take.
func TestDeployedConfigurations(t *testing.T) {
	environ := []string{"NODE_PASSWORD=secret"}
	if _, err := loadConfig("../../deploy/compose/pgpact.yaml", environ); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile("../../deploy/kubernetes/configmap.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var configMap struct{ Data map[string]string }
	if err := yaml.Unmarshal(text, &configMap); err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig("configmap.yaml", []byte(configMap.Data["pgpact.yaml"]), environ)
	if err != nil {
		t.Fatal(err)
	}
	// Other machines can reach it: nobody may come in without a password.
	for _, rule := range cfg.Rules {
		if rule.Method == "trust" {
			t.Errorf("the gateways in Kubernetes trust: %+v", rule)
		}
	}
	if len(cfg.Rules) == 0 || !cfg.clientRoles() {
		t.Error("clients do not act as their own roles")
	}
}
