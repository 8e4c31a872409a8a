package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock/auth"
	"penstock/limits"
	"penstock/provider"
	"penstock/provider/openai"
)

// streamUploadsFrom is the size from which a body that decides nothing, such as a
// file, is passed on as it comes instead of being held.
const streamUploadsFrom = 1 << 20

// methods are those that are served.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodDelete, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodOptions}

// receive reads the request into a Call: what it asks for, and its body once.
func (x *exchange) receive() error {
	r := x.r
	if !slices.Contains(methods, r.Method) {
		return errMethod
	}
	op, path, model, ok := openai.Lookup(r.Method, r.URL.EscapedPath())
	if !ok {
		return errPath
	}
	x.call = &x.called
	x.called = provider.Call{
		Op: op, Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: r.Header, Credential: auth.Credential(r.Header),
		Model: model, Length: -1, Choices: 1, Reserve: x.answerRoom,
	}
	x.rec.Operation, x.rec.Method = op.Name, r.Method
	x.patience()
	if op.Name == "admin_api" && !x.s.Routes.Default.Forward {
		return errAdminAPI
	}
	// Others are offers that may be ignored, such as that of HTTP/2 by Java's client.
	if headerHas(r.Header, "Upgrade", "websocket") && headerHas(r.Header, "Connection", "upgrade") {
		return x.receiveUpgrade()
	}
	if op.Model != provider.ModelNone {
		for _, enc := range r.Header["Content-Encoding"] {
			if enc != "" && !strings.EqualFold(enc, "identity") {
				return errEncoding
			}
		}
	}
	if err := x.readBody(); err != nil {
		return err
	}
	return x.scan()
}

// patience shortens the time to respond to what the client says that it waits.
func (x *exchange) patience() {
	for _, name := range [...]string{"X-Stainless-Timeout", "X-Stainless-Read-Timeout"} {
		text := x.r.Header.Get(name)
		if text == "" {
			continue
		}
		if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < 1e6 {
			at := x.begin.Add(time.Duration(s * float64(time.Second)))
			if at.Before(x.respond) {
				x.respond, x.hurried = at, true
			}
		}
	}
}

// maxWait is how long the call may be in the queue. A client with a time limit of its
// own is told of a refusal so early before it that it reads why, and not a timeout.
func (x *exchange) maxWait() time.Duration {
	wait := time.Until(x.respond)
	if x.hurried {
		wait -= min(x.respond.Sub(x.begin)/20, 500*time.Millisecond)
	}
	return max(wait, time.Millisecond)
}

// scan finds in the body what decides.
func (x *exchange) scan() error {
	c := x.call
	if c.Op.Model == provider.ModelNone {
		return nil
	}
	var err error
	if c.Multipart {
		err = openai.ScanMultipart(c, x.r.Header.Get("Content-Type"), c.Rest == nil, x.s.Settings.Bounds)
	} else if len(c.Body) > 0 || c.Op.Model == provider.ModelRequired {
		err = openai.Scan(c, x.s.Settings.Bounds)
	}
	if err != nil {
		return err
	}
	if c.Rest != nil && c.Model == "" && c.Op.Model == provider.ModelRequired {
		return invalid(http.StatusBadRequest, "missing_model", "model",
			"the form's model did not come within the part that is held in memory; put it before the file")
	}
	if c.Rest != nil && c.Multipart {
		if x.upload.Reader, err = openai.FormRest(c, x.r.Header.Get("Content-Type"), x.upload.Reader); err != nil {
			return err
		}
	}
	x.rec.Stream = c.Stream
	return nil
}

func headerHas(h http.Header, name, token string) bool {
	for _, line := range h[name] {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// listModels answers GET /models and GET /models/{id} from the configuration. With
// no model configured, or for one that only the upstream knows, it leaves the
// answer to the upstream.
func (x *exchange) listModels() (done bool, err error) {
	if x.call.Op.Name != "models" || x.call.Method != http.MethodGet && x.call.Method != http.MethodHead {
		return false, nil
	}
	names := x.s.Routes.Models(x.team.Models)
	id, one := strings.CutPrefix(x.call.Path, "/models/")
	_, open := x.s.Routes.Routes["*"]
	if one {
		return x.oneModel(id, names, open)
	}
	if len(names) == 0 && open {
		return false, nil
	}
	var b bytes.Buffer
	b.WriteString(`{"object":"list","data":[`)
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(modelObject(name))
	}
	b.WriteString(`]}`)
	x.answer(b.Bytes())
	return true, nil
}

// refused counts a refusal.
func (p *Proxy) refused(err error, team string) {
	var e *limits.Exceeded
	if !errors.As(err, &e) {
		return
	}
	scope, dimension := "queue", ""
	if e.Limit != nil {
		scope, dimension = e.Limit.Scope.String(), e.Limit.Dimension.String()
	}
	p.metrics.Refused(scope, dimension, string(e.Reason), team)
}
