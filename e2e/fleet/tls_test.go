package fleet

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock/e2e/harness"
	"penstock/limits/redisstore/redistest"
	"penstock/simulate"
)

// Redis is reached by TLS where its certificate is trusted. Where it is not, it counts
// as away, and no request fails.
func TestRedisByTLS(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	_, port, _ := strings.Cut(harness.FreeAddress(t), ":")
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	up := harness.Serve(t, simulate.New(simulate.Config{}))
	for _, x := range []struct {
		name, tls string
		up        bool
	}{
		{"trusted", fmt.Sprintf(", tls: {ca: %q}", cert), true},
		{"not trusted", "", false},
	} {
		g := harness.Start(t, fmt.Sprintf(`
upstreams: {up: {base_url: "%s/v1", limits: {concurrency: 10}}}
models: {m: up}
redis: {url: "rediss://127.0.0.1:%s", timeout: 2s%s}
teams: {free: {keys: [{name: k, key: %q}]}}
`, up, port, x.tls, keyOf("free")))
		called := func() bool { return g.Metric(t, "penstock_store_call_seconds_count", `result="ok"`) > 0 }
		harness.Eventually(t, 30*time.Second, x.name, func() bool { return (g.Metric(t, "penstock_store_up") == 1) == x.up && called() == x.up })
		if a := (ask{team: "free", model: "m", prompt: 10, output: 10}).send(t.Context(), g.URL); !a.ok() {
			t.Errorf("%s: %v", x.name, &a)
		}
		if called() != x.up {
			t.Errorf("%s: a call of Redis has succeeded: %v", x.name, called())
		}
	}
}

// certificate writes a certificate for 127.0.0.1 that is its own authority, and its
// key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", pair.Certificate[0]), write("key.pem", "PRIVATE KEY", der)
}
