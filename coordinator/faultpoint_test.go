package coordinator

import "testing"

func TestFaultPointNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range FaultPoints() {
		if seen[p.Name] {
			t.Errorf("%s twice", p.Name)
		}
		seen[p.Name] = true
		if p.Scenario == "" {
			t.Errorf("%s: by what is it passed?", p.Name)
		}
	}
}

func TestUnlistedFaultPointPanics(t *testing.T) {
	c := &Coordinator{cfg: Config{FaultPoint: func(string) {}}}
	defer func() {
		if recover() == nil {
			t.Error("it did not panic")
		}
	}()
	c.pass("no such point")
}

// unvisited are the fault points that no test has passed.
func unvisited() []string {
	visited.mu.Lock()
	defer visited.mu.Unlock()
	var names []string
	for _, p := range FaultPoints() {
		if !visited.names[p.Name] {
			names = append(names, p.Name)
		}
	}
	return names
}
