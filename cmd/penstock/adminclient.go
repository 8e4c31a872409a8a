package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"penstock/config"
)

// adminFlags say which gateway a command speaks to. The token comes from the
// environment alone: a flag would show in the process list.
type adminFlags struct {
	Admin string `default:"http://127.0.0.1:9090" env:"PENSTOCK_ADMIN" placeholder:"URL" help:"URL of the gateway's admin listener. Its token comes from PENSTOCK_ADMIN_TOKEN."`
	JSON  bool   `name:"json" help:"Print the gateway's answer as it is."`
}

const adminTimeout = 15 * time.Second

// maxAnswer is the largest answer that is read, in bytes.
const maxAnswer = 256 << 20

// call asks the admin API and decodes its answer into out, or, with --json, prints
// it; done is then true.
func (f *adminFlags) call(env *environment, method, path string, in, out any) (done bool, err error) {
	answer, err := f.ask(env, method, path, in)
	if err != nil {
		return true, err
	}
	if f.JSON {
		_, err := env.stdout.Write(answer)
		return true, err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return true, fmt.Errorf("%s: expected JSON from the admin API: %w", f.Admin, err)
	}
	return false, nil
}

func (f *adminFlags) ask(env *environment, method, path string, in any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(env.ctx, adminTimeout)
	defer cancel()
	resp, err := f.send(ctx, env, method, path, in)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of the admin API: %w", err)
	}
	return answer, nil
}

// send asks the admin API. An answer that is no success is an error; of another,
// the caller closes the body.
func (f *adminFlags) send(ctx context.Context, env *environment, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(f.Admin, "/")+path, body)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token, _ := env.getenv("PENSTOCK_ADMIN_TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	// The token is for this address and no other.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the admin listener: %w; set --admin to its URL", err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of the admin API: %w", err)
	}
	return nil, refused(resp.StatusCode, answer)
}

// refused turns an answer of the admin API into an error.
func refused(status int, answer []byte) error {
	var e struct {
		Error struct{ Message, Code string }
	}
	if err := json.Unmarshal(answer, &e); err != nil || e.Error.Message == "" {
		return fmt.Errorf("the admin API answered %d; check --admin", status)
	}
	if status == http.StatusUnauthorized {
		return errors.New("the admin API needs a token: set PENSTOCK_ADMIN_TOKEN")
	}
	return fmt.Errorf("%s (%s)", e.Error.Message, e.Error.Code)
}

// settingsFlags are settings of a team or key, by the paths that they have in the
// configuration file.
type settingsFlags struct {
	Set   []string `sep:"none" placeholder:"PATH=VALUE" help:"A setting as in the configuration file, such as limits.requests=50/s or limits.concurrency=8. Lists and mappings are written as there: [$5/day, $50/30d]."`
	Unset []string `sep:"none" placeholder:"PATH" help:"A setting to take away."`
}

// into puts the settings into an object. Those that are unset become null, which
// takes them away in a patch.
func (f *settingsFlags) into(object map[string]any) error {
	for _, text := range f.Set {
		path, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--set %s: expected PATH=VALUE", text)
		}
		if err := put(object, path, settingValue(value)); err != nil {
			return fmt.Errorf("--set %s: %w", path, err)
		}
	}
	for _, path := range f.Unset {
		if err := put(object, path, nil); err != nil {
			return fmt.Errorf("--unset %s: %w", path, err)
		}
	}
	return nil
}

// settingValue is JSON where the text is that, a list or mapping as in the file where
// it is one, and otherwise text.
func settingValue(text string) any {
	if raw := json.RawMessage(text); json.Valid(raw) {
		return raw
	}
	if v, ok := config.ParseFlow(text); ok {
		return v
	}
	return text
}

func put(object map[string]any, path string, value any) error {
	head, rest, deeper := strings.Cut(path, ".")
	if head == "" {
		return errors.New("expected names with dots between them")
	}
	if !deeper {
		object[head] = value
		return nil
	}
	inner, ok := object[head].(map[string]any)
	if !ok {
		inner = map[string]any{}
		object[head] = inner
	}
	return put(inner, rest, value)
}

// table prints rows under a heading, in columns.
func table(w io.Writer, heading string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(heading, " ", "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func escape(segment string) string { return url.PathEscape(segment) }
