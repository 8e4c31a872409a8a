package config

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A watchTest runs WatchFiles on one file until the test ends.
type watchTest struct {
	name string
	seen chan string // content of the file at each call of changed
}

func startWatch(t *testing.T, name string, others ...string) *watchTest {
	t.Helper()
	w := &watchTest{name: name, seen: make(chan string, 100)}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		changed := func() {
			content, err := os.ReadFile(name)
			if err != nil {
				content = []byte(err.Error())
			}
			w.seen <- string(content)
		}
		ended <- WatchFiles(ctx, func() []string { return append([]string{name}, others...) }, changed)
	}()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch does not end")
		}
	})
	return w
}

var version int

// until makes one change after the other until a call of changed sees one of them:
// Watch does not say when it has begun. On a busy machine a call may still see a
// change of before, or a file that is half written; then there is another call.
func (w *watchTest) until(t *testing.T, change func(content string)) {
	t.Helper()
	var made []string
	last := ""
	deadline := time.After(20 * time.Second)
	for {
		version++
		made = append(made, fmt.Sprintf("log: {level: info} # version %d\n", version))
		change(made[len(made)-1])
		select {
		case got := <-w.seen:
			last = got
			if slices.Contains(made, got) {
				return
			}
		case <-time.After(3 * settleTime):
		case <-deadline:
			t.Fatalf("changed saw none of %d changes, and %q last", len(made), last)
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// link makes name a symbolic link to target, in one step.
func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, name string) {
	t.Helper()
	if err := os.MkdirAll(name, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestWatchWrite(t *testing.T) {
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	write(t, name, "# first\n")
	w := startWatch(t, name)
	for range 2 {
		w.until(t, func(content string) { write(t, name, content) })
	}
}

// Editors write a new file and rename it over the old one.
func TestWatchRename(t *testing.T) {
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	write(t, name, "# first\n")
	w := startWatch(t, name)
	for range 2 {
		w.until(t, func(content string) {
			write(t, name+"~", content)
			if err := os.Rename(name+"~", name); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A Kubernetes volume swaps the link ..data, and removes the old
// directory; the file that is mounted is a link through it.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "penstock.yaml")
	swap := func(content string) {
		fresh := fmt.Sprintf("..%d", version)
		mkdir(t, filepath.Join(dir, fresh))
		write(t, filepath.Join(dir, fresh, "penstock.yaml"), content)
		old, _ := os.Readlink(filepath.Join(dir, "..data"))
		link(t, fresh, filepath.Join(dir, "..data"))
		if old != "" {
			if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
				t.Fatal(err)
			}
		}
	}
	version++
	swap("# first\n")
	if err := os.Symlink("..data/penstock.yaml", name); err != nil {
		t.Fatal(err)
	}
	w := startWatch(t, name)
	for range 3 {
		w.until(t, swap)
	}
}

// A link in the middle of the path may be swapped, too.
func TestWatchLinkedDirectory(t *testing.T) {
	dir := t.TempDir()
	current := filepath.Join(dir, "current")
	swap := func(content string) {
		fresh := filepath.Join(dir, fmt.Sprintf("release-%d", version))
		mkdir(t, fresh)
		write(t, filepath.Join(fresh, "penstock.yaml"), content)
		link(t, fresh, current)
	}
	version++
	swap("# first\n")
	w := startWatch(t, filepath.Join(current, "penstock.yaml"))
	for range 2 {
		w.until(t, swap)
	}
}

// The directory of the file is removed and made again.
func TestWatchNewDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	name := filepath.Join(dir, "penstock.yaml")
	mkdir(t, dir)
	write(t, name, "# first\n")
	w := startWatch(t, name)
	for range 2 {
		w.until(t, func(content string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			mkdir(t, dir)
			write(t, name, content)
		})
	}
}

func TestWatchSecretFile(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	name, secret := filepath.Join(dir, "penstock.yaml"), filepath.Join(other, "key")
	version++
	content := fmt.Sprintf("log: {level: info} # version %d\n", version)
	write(t, name, content)
	write(t, secret, "first")
	w := startWatch(t, name, secret)
	deadline := time.After(20 * time.Second)
	for i := 0; ; i++ {
		write(t, secret, fmt.Sprint("key ", i))
		select {
		case got := <-w.seen:
			if got != content {
				t.Errorf("content %q", got)
			}
			return
		case <-time.After(3 * settleTime):
		case <-deadline:
			t.Fatal("changed was not called")
		}
	}
}

func TestWatchUntilDone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "penstock.yaml")
	write(t, name, "# first\n")
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := WatchFiles(ctx, func() []string { return []string{name} }, func() { t.Error("changed was called") }); err != nil {
		t.Error(err)
	}
}

// Only other content is a change: not a new time, the same text, a file that is
// missing for a moment, or another file.
func TestOnlyContentIsAChange(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "penstock.yaml")
	write(t, name, "one")
	w := watchedFiles{content: map[string]digest{}, files: []string{name}}
	expect := func(step string, want bool) {
		t.Helper()
		if got := w.look(); got != want {
			t.Errorf("%s: changed is %v, want %v", step, got, want)
		}
	}
	expect("first look", true)
	expect("nothing done", false)
	write(t, name, "one")
	expect("same text", false)
	if err := os.Chtimes(name, time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	write(t, name+".swp", "two")
	expect("another file", false)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	expect("missing", false)
	write(t, name, "one")
	expect("back again", false)
	write(t, name, "two")
	expect("other text", true)
	expect("seen already", false)
}
