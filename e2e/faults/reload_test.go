package faults

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"penstock/e2e/harness"
)

// covers LIFE-04: 200 reloads under load, some of them of an invalid file, fail no
// request and leak nothing; an invalid file changes nothing, and is counted.
func TestReloadsUnderLoad(t *testing.T) {
	u := newUpstream(answers)
	url := harness.Serve(t, u)
	config := func(slots int) string {
		return strings.Replace(one(url, "log: {access: false}\n"), "api_key:", fmt.Sprintf("limits: {concurrency: %d}, api_key:", slots), 1)
	}
	g := harness.Start(t, config(20))
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 50}}
	ask := func() string {
		resp, err := client.Post(g.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || string(b) != answer {
			return fmt.Sprintf("%d %v %.200s", resp.StatusCode, err, b)
		}
		return ""
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var asked atomic.Int64
	for range 20 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				asked.Add(1)
				if text := ask(); text != "" {
					t.Errorf("a request failed: %s", text)
				}
			}
		})
	}
	reloads := func(result string) float64 {
		return g.Metric(t, "penstock_config_reloads_total", `result="`+result+`"`)
	}
	// reload waits for one reload more that ends like this.
	reload := func(text, result string) {
		before := reloads(result)
		g.Rewrite(t, text)
		g.Signal(t, syscall.SIGHUP)
		harness.Eventually(t, 30*time.Second, "it is read", func() bool { return reloads(result) > before })
	}
	for i := range 20 { // what is allocated once
		reload(config(20+i%2), "ok")
	}
	goroutines, descriptors, memory := g.Goroutines(t), g.Descriptors(t), g.Resident(t)
	capacity := func() float64 { return g.Metric(t, "penstock_limit_capacity", `dimension="concurrency"`) }
	for i := range 200 {
		if i%10 == 9 {
			before := capacity()
			reload("upstreams: {up: {base_url: 5}}\nunknown_key: true\n", "error")
			if capacity() != before {
				t.Fatalf("an invalid file changed the limit from %v to %v", before, capacity())
			}
			continue
		}
		reload(config(20+i%2), "ok")
		harness.Eventually(t, 30*time.Second, "the new limit is in force", func() bool { return capacity() == float64(20+i%2) })
	}
	close(stop)
	all.Wait()
	if reloads("error") < 20 || !strings.Contains(g.Logs(), "unknown_key") {
		t.Errorf("%v refused reloads are counted", reloads("error"))
	}
	client.CloseIdleConnections()
	harness.Eventually(t, 30*time.Second, "goroutines and descriptors are gone", func() bool {
		return g.Goroutines(t) <= goroutines+40 && g.Descriptors(t) <= descriptors+40
	})
	if grown := g.Resident(t) - memory; grown > 32<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	t.Logf("%v good and %v refused reloads, %d requests", reloads("ok"), reloads("error"), asked.Load())
}

// covers SEC-08: a key that is taken out of the file is refused within a second, a
// new one works within a second although it was refused before, and a stream that
// runs is left to run.
func TestRevokedKey(t *testing.T) {
	u := newUpstream(streams(60, 50*time.Millisecond))
	url := harness.Serve(t, u)
	config := func(key string) string {
		return one(url, fmt.Sprintf("teams:\n  t: {keys: [{name: k, hash: \"sha256:%x\"}]}\n", sha256.Sum256([]byte(key))))
	}
	const first, second = "psk_first-key-0123456789", "psk_second-key-0123456789"
	g := harness.Start(t, config(first))
	asks := func(t testing.TB, key string) int {
		r, err := http.NewRequest("GET", g.URL+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		resp, err := fresh.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if asks(t, first) != 200 || asks(t, second) != 401 || asks(t, "") != 401 {
		t.Fatal("the keys of the file are not those in force")
	}
	s := dial(t, g)
	s.post(helloStream, "Authorization: Bearer "+first)
	body := s.response().Body

	old, key := first, second
	harness.Rounds(t, func(t *harness.Round) {
		g.Rewrite(t, config(key))
		begin := time.Now()
		harness.Eventually(t, 30*time.Second, "the new key works", func() bool { return asks(t, key) == 200 })
		took := time.Since(begin)
		if asks(t, old) != 401 {
			t.Error("the old key still works")
		}
		t.Logf("in force after %v", took.Round(time.Millisecond))
		old, key = key, old
		t.AtMost(time.Second, took, "the new key's coming into force")
	})
	if b, err := io.ReadAll(body); err != nil || string(b) != whole(60) {
		t.Errorf("the stream of the old key was cut: %v", err)
	}
	if text := g.Logs(); strings.Contains(text, "psk_") || strings.Contains(text, "sk-upstream") {
		t.Error("a key stands in the log")
	}
}

// A file that cannot be read for a moment changes nothing.
func TestMissingFileChangesNothing(t *testing.T) {
	g := harness.Start(t, one(harness.Serve(t, newUpstream(answers)), ""))
	if err := os.Remove(g.File); err != nil {
		t.Fatal(err)
	}
	g.Signal(t, syscall.SIGHUP)
	harness.Eventually(t, 30*time.Second, "it is counted", func() bool { return g.Metric(t, "penstock_config_reloads_total", `result="error"`) > 0 })
	if code := status(g.URL + "/v1/models"); code != 200 {
		t.Errorf("answered %d", code)
	}
}
