package plainhttp

import (
	"net/http"
	"testing"
)

// What is not ordinary is net/http's.
func TestWhatIsLeftToNetHTTP(t *testing.T) {
	tr := transport(t, nil)
	u := serving(t, answering)
	for name, change := range map[string]func(r *http.Request){
		"https":          func(r *http.Request) { r.URL.Scheme = "https" },
		"no host":        func(r *http.Request) { r.URL.Host = "" },
		"a strange host": func(r *http.Request) { r.URL.Host = "bücher.example" },
		"a method":       func(r *http.Request) { r.Method = http.MethodConnect },
		"a stream":       func(r *http.Request) { r.GetBody = nil },
		"no length":      func(r *http.Request) { r.ContentLength = -1 },
		"a trailer":      func(r *http.Request) { r.Trailer = http.Header{"X-A": nil} },
		"closing":        func(r *http.Request) { r.Close = true },
		"upgrade":        func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"connection":     func(r *http.Request) { r.Header["connection"] = []string{"close"} },
		"expect":         func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"a bad name":     func(r *http.Request) { r.Header["a b"] = []string{"c"} },
		"a bad value":    func(r *http.Request) { r.Header["X-A"] = []string{"b\r\nX-C: d"} },
		"no header":      func(r *http.Request) { r.Header = nil },
	} {
		r := post(t, u, "{}")
		change(r)
		if tr.ordinary(r) {
			t.Errorf("%s is not left to net/http", name)
		}
	}
	if !tr.ordinary(post(t, u, "{}")) || !tr.ordinary(get(t, u)) {
		t.Error("nothing is ordinary")
	}
	tr.base.Proxy = http.ProxyURL(get(t, u).URL)
	if tr.ordinary(get(t, u)) {
		t.Error("a proxy is passed by")
	}
}
