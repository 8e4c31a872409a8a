package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleTime is how long a directory must be quiet before its files are looked at:
// editors and volume updates take several steps.
const settleTime = 100 * time.Millisecond

// maxSettleTime bounds how long a directory that is never quiet can put that off.
const maxSettleTime = time.Second

// maxLinks bounds how many symbolic links are followed to one file.
const maxLinks = 40

// WatchFiles calls changed whenever the content of one of the files has become
// another, until ctx is done; then it returns nil. It watches directories, so that
// editors that rename and volumes that swap a symbolic link are noticed. A file that
// is missing for a moment is not a change. files names them, such as the
// configuration and its SecretFiles; it is asked again after every change, so that
// it may return others.
//
// changed runs on the goroutine of WatchFiles; further changes wait until it
// returns. A change between Load and the start of WatchFiles is not noticed: start
// it first, or load once more.
//
// It returns an error when the operating system refuses to watch, for example
// because too many files are watched already; changes are not noticed from then on.
func WatchFiles(ctx context.Context, files func() []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	defer w.Close()
	watched := watchedFiles{watcher: w}
	watched.set(files())
	settled := time.After(0) // when to look at the files; nil while nothing has happened
	first := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			if settled == nil {
				first = time.Now()
			}
			// Files that never rest, such as a log in the same directory, must not
			// put it off for ever.
			if time.Since(first) < maxSettleTime {
				settled = time.After(settleTime)
			}
		case <-w.Errors:
			// Events were lost, so look.
			settled, first = time.After(settleTime), time.Now()
		case <-settled:
			settled = nil
			complete, err := watched.follow()
			if err != nil {
				return err
			}
			different := watched.look()
			if different {
				changed()
				watched.set(files())
			}
			if different || !complete {
				settled, first = time.After(settleTime), time.Now()
			}
		}
	}
}

// watchedFiles watches the directories of some files, and knows their content.
type watchedFiles struct {
	watcher *fsnotify.Watcher
	files   []string
	content map[string]digest // of files that have been read
}

type digest [sha256.Size]byte

// set replaces the list of files. What is known of their content stays, so that a
// change while the last one was handled is still noticed.
func (w *watchedFiles) set(files []string) {
	w.files = slices.Clone(files)
	content := map[string]digest{}
	for _, name := range w.files {
		sum, known := w.content[name]
		if !known {
			sum, known = digestOf(name)
		}
		if known {
			content[name] = sum
		}
	}
	w.content = content
}

// look reads the files and says whether the content of one has changed.
func (w *watchedFiles) look() bool {
	changed := false
	for _, name := range w.files {
		sum, ok := digestOf(name)
		if ok && sum != w.content[name] {
			w.content[name] = sum
			changed = true
		}
	}
	return changed
}

// digestOf returns the SHA-256 of a regular file, false when it cannot be read.
func digestOf(name string) (sum digest, ok bool) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return sum, false
	}
	data, err := readFile(name)
	return sha256.Sum256(data), err == nil
}

// follow watches the directories that the files are in now, and no others. It is
// not complete when the directories changed meanwhile: then it is called again.
func (w *watchedFiles) follow() (complete bool, err error) {
	wanted := w.directories()
	for _, dir := range w.watcher.WatchList() {
		if !wanted[dir] {
			// It may have gone by itself.
			_ = w.watcher.Remove(dir)
		}
	}
	complete = true
	for dir := range wanted {
		err := w.watcher.Add(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			complete = false
		case err != nil:
			return false, fmt.Errorf("watch the configuration: directory %s: %w", dir, err)
		}
	}
	// A link that was swapped before its directory was watched has sent no event.
	return complete && maps.Equal(wanted, w.directories()), nil
}

// directories returns the directories to watch.
func (w *watchedFiles) directories() map[string]bool {
	dirs := map[string]bool{}
	for _, name := range w.files {
		if abs, err := filepath.Abs(name); err == nil {
			addDirectories(abs, dirs, maxLinks)
		}
	}
	return dirs
}

// addDirectories adds the directories in which a change can put other content
// under a name: that of the file, and that of each symbolic link on the way to it.
// Of a path that does not exist it adds the last directory that does.
func addDirectories(name string, dirs map[string]bool, links int) {
	dir := "/"
	rest := strings.Split(strings.TrimPrefix(name, "/"), "/")
	for i, step := range rest {
		at := filepath.Join(dir, step)
		info, err := os.Lstat(at)
		if err != nil || i == len(rest)-1 {
			dirs[dir] = true
		}
		if err != nil {
			return
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			dirs[dir] = true
			target, err := os.Readlink(at)
			if err != nil || links == 0 {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(dir, target)
			}
			addDirectories(filepath.Join(append([]string{target}, rest[i+1:]...)...), dirs, links-1)
			return
		}
		dir = at
	}
}
