package deploy

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock/config"
)

func number(n int64) string { return strconv.FormatInt(n, 10) }

// kind returns the one document of a kind.
func kind(t *testing.T, name, want string) any {
	t.Helper()
	var found any
	for _, doc := range documents(t, name) {
		if at(doc, "kind") == want {
			if found != nil {
				t.Fatalf("%s has several documents of kind %s", name, want)
			}
			found = doc
		}
	}
	if found == nil {
		t.Fatalf("%s has no %s", name, want)
	}
	return found
}

// loadConfigMap loads the configuration in a ConfigMap.
func loadConfigMap(t *testing.T, name string, env map[string]string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "penstock.yaml")
	content := text(at(kind(t, name, "ConfigMap"), "data", "penstock.yaml"))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return load(t, file, env)
}

// secretKeys are the keys that the comment on kubectl create secret gives, with
// values for the test.
func secretKeys(t *testing.T, name string) map[string]string {
	t.Helper()
	keys := map[string]string{}
	for line := range strings.Lines(string(read(t, name))) {
		if _, rest, ok := strings.Cut(line, "--from-literal="); ok {
			key, _, _ := strings.Cut(rest, "=")
			keys[key] = "value-for-the-test-of-" + key
		}
	}
	return keys
}

func TestSidecar(t *testing.T) {
	const name = "kubernetes/sidecar.yaml"
	c := loadConfigMap(t, name, secretKeys(t, name))
	deployment := kind(t, name, "Deployment")
	pod := at(deployment, "spec", "template", "spec")
	penstock, app := at(pod, "initContainers", 0), at(pod, "containers", 0)

	if at(penstock, "restartPolicy") != "Always" {
		t.Error("without restartPolicy Always it is an init container, not a sidecar")
	}
	if at(penstock, "startupProbe", "httpGet", "path") != "/readyz" {
		t.Error("the app must not start before Penstock is ready")
	}
	for _, e := range list(at(penstock, "env")) {
		if key := text(at(e, "valueFrom", "secretKeyRef", "key")); key != "" && secretKeys(t, name)[key] == "" {
			t.Errorf("the comment on the secret does not give %s", key)
		}
	}
	base := ""
	for _, e := range list(at(app, "env")) {
		if at(e, "name") == "OPENAI_BASE_URL" {
			base = text(at(e, "value"))
		}
	}
	if want := "http://" + c.Listen + "/v1"; base != want {
		t.Errorf("OPENAI_BASE_URL is %q, want %q", base, want)
	}
	if len(c.Teams) != 0 || !strings.HasPrefix(c.Listen, "127.0.0.1:") {
		t.Error("a sidecar listens on loopback and asks for no key")
	}
	checkWorkload(t, name, c, deployment, penstock)
}

func TestGateway(t *testing.T) {
	const name = "kubernetes/gateway.yaml"
	c := loadConfigMap(t, name, secretKeys(t, name))
	deployment := kind(t, name, "Deployment")
	penstock := at(deployment, "spec", "template", "spec", "containers", 0)
	checkWorkload(t, name, c, deployment, penstock)

	if replicas := fmt.Sprint(at(deployment, "spec", "replicas")); replicas != "1" {
		t.Errorf("%s replicas would each have the full limits", replicas)
	}
	if len(c.Teams) == 0 || time.Duration(c.Drain.Delay) == 0 {
		t.Error("a gateway needs teams, and a drain delay for its Service")
	}
	service := kind(t, name, "Service")
	if !same(at(service, "spec", "selector"), at(deployment, "spec", "template", "metadata", "labels")) {
		t.Error("the Service does not select the pods")
	}
	for _, p := range list(at(service, "spec", "ports")) {
		if port(penstock, text(at(p, "targetPort"))) == "" {
			t.Errorf("the container has no port %v", at(p, "targetPort"))
		}
	}
}

func TestFleet(t *testing.T) {
	const name = "kubernetes/fleet.yaml"
	c := loadConfigMap(t, name, secretKeys(t, name))
	deployment := kind(t, name, "Deployment")
	checkWorkload(t, name, c, deployment, at(deployment, "spec", "template", "spec", "containers", 0))

	replicas := fmt.Sprint(at(deployment, "spec", "replicas"))
	if c.Redis == nil || replicas != number(c.Redis.Replicas) {
		t.Fatalf("%s replicas do not share their limits, or are told of another number", replicas)
	}
	if fmt.Sprint(at(deployment, "spec", "strategy", "rollingUpdate", "maxUnavailable")) != "0" || time.Duration(c.Drain.Delay) == 0 {
		t.Error("a rolling update takes pods away before others are ready, or before the Service has noticed")
	}
	pods := at(deployment, "spec", "template", "metadata", "labels")
	budget := kind(t, name, "PodDisruptionBudget")
	if !same(at(budget, "spec", "selector", "matchLabels"), pods) {
		t.Error("the PodDisruptionBudget is not that of the pods")
	}
	redis := kind(t, name, "StatefulSet")
	labels := at(redis, "spec", "template", "metadata", "labels")
	policy := kind(t, name, "NetworkPolicy")
	if !same(at(policy, "spec", "podSelector", "matchLabels"), labels) ||
		!same(at(policy, "spec", "ingress", 0, "from", 0, "podSelector", "matchLabels"), pods) {
		t.Error("the NetworkPolicy does not let the gateways to Redis")
	}
	selected := map[string]any{}
	for _, doc := range documents(t, name) {
		if at(doc, "kind") == "Service" {
			selected[text(at(doc, "metadata", "name"))] = at(doc, "spec", "selector")
		}
	}
	server, ok := c.Redis.Server()
	if !ok {
		t.Fatal("the configuration does not say where Redis is")
	}
	host, number, _ := strings.Cut(server.Addresses[0], ":")
	if !same(selected[host], labels) || port(at(redis, "spec", "template", "spec", "containers", 0), "redis") != number {
		t.Errorf("no Service leads to %v", server.Addresses)
	}
	if !same(selected["penstock"], pods) {
		t.Error("the Service does not select the gateways")
	}
}

// checkWorkload checks what both deployments have in common.
func checkWorkload(t *testing.T, name string, c *config.Config, deployment, penstock any) {
	t.Helper()
	pod := at(deployment, "spec", "template", "spec")
	if !same(at(deployment, "spec", "selector", "matchLabels"), at(deployment, "spec", "template", "metadata", "labels")) {
		t.Error("the Deployment does not select its own pods")
	}
	grace, err := strconv.Atoi(fmt.Sprint(at(pod, "terminationGracePeriodSeconds")))
	if drain := time.Duration(c.Drain.Delay) + time.Duration(c.Drain.Limit); err != nil || time.Duration(grace)*time.Second <= drain {
		t.Errorf("terminationGracePeriodSeconds is %d, the drain takes %v", grace, drain)
	}
	for probe, want := range map[string]string{"readinessProbe": "/readyz", "livenessProbe": "/healthz"} {
		get := at(penstock, probe, "httpGet")
		admin, err := url.Parse("http://host" + c.Admin.Listen)
		if err != nil || at(get, "path") != want || port(penstock, text(at(get, "port"))) != admin.Port() {
			t.Errorf("%s is %v, want %s on %s", probe, get, want, c.Admin.Listen)
		}
	}
	if at(pod, "securityContext", "runAsNonRoot") != true {
		t.Error("runAsNonRoot is not set")
	}
	for _, container := range append(list(at(pod, "containers")), list(at(pod, "initContainers"))...) {
		s := at(container, "securityContext")
		if at(s, "readOnlyRootFilesystem") != true || at(s, "allowPrivilegeEscalation") != false || at(s, "capabilities", "drop", 0) != "ALL" {
			t.Errorf("container %v: securityContext is %v", at(container, "name"), s)
		}
		if at(container, "resources", "requests", "memory") == nil || at(container, "resources", "limits", "memory") == nil {
			t.Errorf("container %v has no memory request or limit", at(container, "name"))
		}
	}
	volume, mount := at(pod, "volumes", 0), at(penstock, "volumeMounts", 0)
	if at(volume, "name") != at(mount, "name") || at(volume, "configMap", "name") != at(kind(t, name, "ConfigMap"), "metadata", "name") {
		t.Errorf("volume %v, mount %v", volume, mount)
	}
	if file := text(at(penstock, "args", 2)); filepath.Dir(file) != at(mount, "mountPath") || at(mount, "subPath") != nil {
		t.Errorf("%s is not in the mounted directory %v", file, mount)
	}
}

// port is the number of a container's named port; empty when there is none.
func port(container any, name string) string {
	for _, p := range list(at(container, "ports")) {
		if at(p, "name") == name {
			return fmt.Sprint(at(p, "containerPort"))
		}
	}
	return ""
}

// same says whether two mappings are equal and not empty.
func same(a, b any) bool {
	x, _ := a.(object)
	return len(x) > 0 && fmt.Sprint(a) == fmt.Sprint(b)
}
