package config

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxSecretFile is the largest secret file, in bytes.
const maxSecretFile = 64 << 10

// SecretFiles returns the absolute paths of the files that secrets were read from,
// sorted. A change in one of them calls for a reload.
func (c *Config) SecretFiles() []string { return slices.Clone(c.secretFiles) }

// eachSecret calls do for every secret in c and puts its result in place.
func (c *Config) eachSecret(do func(p path, s Secret) Secret) {
	c.Admin.Token = do(path{"admin", "token"}, c.Admin.Token)
	for i, t := range c.Admin.Tokens {
		c.Admin.Tokens[i].Token = do(path{"admin", "tokens"}.index(i).key("token"), t.Token)
	}
	if r := c.Redis; r != nil {
		r.URL = do(path{"redis", "url"}, r.URL)
		r.Password = do(path{"redis", "password"}, r.Password)
		r.SentinelPassword = do(path{"redis", "sentinel_password"}, r.SentinelPassword)
	}
	c.Database.URL = do(path{"database", "url"}, c.Database.URL)
	for name, u := range c.Upstreams {
		p := path{"upstreams", name}
		u.APIKey = do(p.key("api_key"), u.APIKey)
		for header, value := range u.Headers {
			u.Headers[header] = do(p.key("headers").key(header), value)
		}
		c.Upstreams[name] = u
	}
	for name, t := range c.Teams {
		for i := range t.Keys {
			p := path{"teams", name, "keys"}.index(i).key("key")
			t.Keys[i].Key = do(p, t.Keys[i].Key)
		}
	}
}

// secrets reads the files that secrets refer to by file:, relative to dir, unless
// dir is empty; and checks that every secret can travel in a header.
func (v *validator) secrets(dir string) {
	v.c.eachSecret(func(p path, s Secret) Secret {
		name, isFile := strings.CutPrefix(string(s), "file:")
		if isFile && dir != "" {
			content, err := v.readSecret(dir, name)
			if err != nil {
				v.say(p, "cannot read "+v.fileText(p)+": "+err.Error())
				return ""
			}
			s = content
		}
		switch {
		case strings.ContainsFunc(string(s), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			v.say(p, "holds a line break or another control character")
		case strings.TrimSpace(string(s)) != string(s):
			v.say(p, "begins or ends with a space")
		}
		return s
	})
	slices.Sort(v.c.secretFiles)
	v.c.secretFiles = slices.Compact(v.c.secretFiles)
}

// fileText names the file of a secret as the configuration does. It is not named
// when its path came out of a variable as a whole.
func (v *validator) fileText(p path) string {
	n, _, rest := v.d.locate(p)
	if text := v.d.text(n); len(rest) == 0 && strings.HasPrefix(text, "file:") {
		return quote(text)
	}
	return "the file that the variable names"
}

var (
	errNotRegular = errors.New("not a regular file")
	errTooLarge   = errors.New("larger than 64 KiB")
	errEmpty      = errors.New("the file is empty")
)

// readSecret reads a secret file without the line break at its end. Its errors do
// not name the file.
func (v *validator) readSecret(dir, name string) (Secret, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	if abs, err := filepath.Abs(name); err == nil {
		v.c.secretFiles = append(v.c.secretFiles, abs)
	}
	data, err := readRegular(name)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	data = bytes.TrimRight(data, "\r\n")
	switch {
	case err != nil:
		return "", err
	case len(data) == 0:
		return "", errEmpty
	}
	return Secret(data), nil
}

// readRegular reads a small regular file. Others are refused before they are
// opened, since opening a pipe may block.
func readRegular(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errNotRegular
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err == nil && len(data) > maxSecretFile {
		err = errTooLarge
	}
	return data, err
}
