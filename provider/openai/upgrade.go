package openai

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"penstock/provider"
)

// NameWebSocket is the operation of every request for a WebSocket.
const NameWebSocket = "websocket"

// protocolCredentials begin the subprotocols by which browsers, which cannot set
// headers, send what others send in them
// (https://platform.openai.com/docs/guides/realtime).
var protocolCredentials = []string{"openai-insecure-api-key.", "openai-organization.", "openai-project."}

// UpgradeModel is the model that a request for a WebSocket names in its query, or
// "". Only realtime connections do; others name it in their first message, which
// is not looked at. Azure's clients call it the deployment.
func UpgradeModel(path, query string) (model string, err error) {
	if first, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(path), "/"), "/"); first != "realtime" {
		return "", nil
	}
	values, bad := url.ParseQuery(query)
	named := append(values["model"], values["deployment"]...)
	switch {
	case bad != nil:
		return "", reject(CodeInvalidValue, keyModel, "the query cannot be read; escape what is in it")
	case len(named) > 1:
		return "", reject(CodeInvalidValue, keyModel, "the query names more than one model")
	case len(named) == 0:
		return "", nil
	}
	return named[0], checkModel(named[0])
}

// renameInQuery is a raw query with the model under which the upstream knows it.
func renameInQuery(raw, model string) string {
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err == nil && (name == "model" || name == "deployment") {
			parts[i] = "model=" + url.QueryEscape(model)
		}
	}
	return strings.Join(parts, "&")
}

// upgradeHeader makes of a request's header one that asks for a WebSocket.
func upgradeHeader(out http.Header, t *provider.Target, c *provider.Call) {
	out["Connection"], out["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	const name = "Sec-Websocket-Protocol"
	delete(out, name)
	var kept []string
	for _, line := range c.Header[name] {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = strings.TrimSpace(protocol); t.Forward || !isProtocolCredential(protocol) && !leaks([]string{protocol}, c.Credential) {
				kept = append(kept, protocol)
			}
		}
	}
	if len(kept) > 0 {
		out[name] = []string{strings.Join(kept, ", ")}
	}
}

func isProtocolCredential(protocol string) bool {
	for _, prefix := range protocolCredentials {
		if len(protocol) >= len(prefix) && strings.EqualFold(protocol[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// upgraded is the reply of an upstream that has opened a WebSocket. Its body can be
// written to.
func upgraded(t *provider.Target, resp *http.Response) (*provider.Reply, error) {
	if _, ok := resp.Body.(io.ReadWriteCloser); !ok || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		resp.Body.Close()
		return nil, &provider.Error{Kind: provider.KindHealth, Code: "protocol", Err: fmt.Errorf("the upstream switched to %q", resp.Header.Get("Upgrade"))}
	}
	return &provider.Reply{
		Status: resp.StatusCode, Header: replyHeader(t, resp.Header), Body: resp.Body, Length: -1,
		Usage: func() provider.Usage { return provider.Usage{} },
	}, nil
}
