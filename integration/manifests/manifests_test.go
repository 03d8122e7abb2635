// Package manifests reads deploy/kubernetes with the types of Kubernetes's own API: a
// key that it does not know is an error here, and not one that a cluster drops in
// silence. What the files say of each other must fit.
package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const directory = "../../deploy/kubernetes"

// decode reads a file of one object into its type, strictly.
func decode[T any](t *testing.T, path, apiVersion, kind string) T {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(directory, path))
	if err != nil {
		t.Fatal(err)
	}
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	first, err := documents.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := documents.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("%s has a second object, which nobody looks at", path)
	}
	var meta struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
	}
	if err := yaml.Unmarshal(first, &meta); err != nil {
		t.Fatal(err)
	}
	if meta.APIVersion != apiVersion || meta.Kind != kind {
		t.Errorf("%s is %s %s, want %s %s", path, meta.APIVersion, meta.Kind, apiVersion, kind)
	}
	if problems := validation.IsDNS1123Label(meta.Name); len(problems) > 0 {
		t.Errorf("%s: the name %q: %v", path, meta.Name, problems)
	}
	var object T
	if err := yaml.UnmarshalStrict(first, &object); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return object
}

func TestManifests(t *testing.T) {
	deployment := decode[appsv1.Deployment](t, "deployment.yaml", "apps/v1", "Deployment")
	service := decode[corev1.Service](t, "service.yaml", "v1", "Service")
	budget := decode[policyv1.PodDisruptionBudget](t, "poddisruptionbudget.yaml", "policy/v1", "PodDisruptionBudget")
	config := decode[corev1.ConfigMap](t, "configmap.yaml", "v1", "ConfigMap")
	job := decode[batchv1.Job](t, "migrate/job.yaml", "batch/v1", "Job")

	pod := deployment.Spec.Template
	for what, selector := range map[string]map[string]string{
		"the deployment": deployment.Spec.Selector.MatchLabels, "the service": service.Spec.Selector, "the budget": budget.Spec.Selector.MatchLabels,
		"the spread": pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels,
	} {
		if !maps.Equal(selector, pod.Labels) {
			t.Errorf("%s selects %v, the gateways are %v", what, selector, pod.Labels)
		}
	}
	if maps.Equal(job.Spec.Template.Labels, pod.Labels) {
		t.Error("the service would send clients to the migration")
	}
	gateway := pod.Spec.Containers[0]
	ports := map[string]int32{}
	for _, p := range gateway.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for key, port := range map[string]string{"\nlisten: 0.0.0.0:6432\n": "postgres", "\nadmin_listen: 0.0.0.0:6480 ": "admin"} {
		if !strings.Contains("\n"+config.Data["pgpact.yaml"], key) || !strings.Contains(key, ":"+strconv.Itoa(int(ports[port]))) {
			t.Errorf("the port %s is %d, and not where the configuration says (%q)", port, ports[port], key)
		}
	}
	if target := service.Spec.Ports[0].TargetPort.String(); len(service.Spec.Ports) != 1 || target != "postgres" {
		t.Errorf("the service leads to %s, and to %d ports", target, len(service.Spec.Ports))
	}
	for path, probe := range map[string]*corev1.Probe{"/readyz": gateway.ReadinessProbe, "/livez": gateway.LivenessProbe} {
		if probe.HTTPGet.Path != path || probe.HTTPGet.Port.String() != "admin" {
			t.Errorf("a probe asks for %s at %s, want %s", probe.HTTPGet.Path, probe.HTTPGet.Port.String(), path)
		}
	}
	// drain_timeout is 10 s unless the configuration says otherwise, and 5 s more are for what is written after it.
	if pause := gateway.Lifecycle.PreStop.Sleep.Seconds; *pod.Spec.TerminationGracePeriodSeconds < pause+15 || strings.Contains(config.Data["pgpact.yaml"], "drain_timeout") {
		t.Errorf("killed after %d s, with a pause of %d s before SIGTERM", *pod.Spec.TerminationGracePeriodSeconds, pause)
	}
	for name, spec := range map[string]corev1.PodSpec{"gateway": pod.Spec, "migration": job.Spec.Template.Spec} {
		checkPod(t, name, spec, config.Name)
	}
}

// checkPod holds what gateways and the migration have in common: no rights, no
// service's variables (pgpact refuses PGPACT_ADMIN_PORT and the like), and the
// configuration with what it refers to.
func checkPod(t *testing.T, name string, spec corev1.PodSpec, config string) {
	t.Helper()
	container := spec.Containers[0]
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks || spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s: service links or a token are mounted", name)
	}
	rights := container.SecurityContext
	if !*spec.SecurityContext.RunAsNonRoot || *rights.AllowPrivilegeEscalation || !*rights.ReadOnlyRootFilesystem || rights.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%s: has more rights than it needs", name)
	}
	volumes := map[string]corev1.Volume{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = v
	}
	mounted := map[string]bool{}
	for _, m := range container.VolumeMounts {
		if _, there := volumes[m.Name]; !there {
			t.Errorf("%s: mounts %s, which is no volume", name, m.Name)
		}
		mounted[m.MountPath] = true
	}
	if !mounted["/etc/pgpact/pgpact.yaml"] || !mounted["/etc/pgpact/tls"] || volumes["config"].ConfigMap.Name != config {
		t.Errorf("%s: its configuration and certificates are not where it looks: %v", name, mounted)
	}
	// Closed to others, or the gateway refuses the key: root owns it, and the group reads it.
	if mode := volumes["tls"].Secret.DefaultMode; mode == nil || *mode&0o037 != 0 || spec.SecurityContext.FSGroup == nil {
		t.Errorf("%s: the key's mode is not for the gateway alone", name)
	}
	environment := map[string]bool{}
	for _, e := range container.Env {
		environment[e.Name] = true
	}
	if !environment["NODE_PASSWORD"] {
		t.Errorf("%s: the addresses need NODE_PASSWORD", name)
	}
}
