package proxy

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"penstock/limits"
)

var crossOrigin = http.NewCrossOriginProtection()

// foreign reports whether a browser makes the request for a web page of somebody
// else. Where no key is asked for, such a page could spend the gateway's. On a
// loopback address a name that is not this machine's own may be one that the page
// has pointed here.
func foreign(r *http.Request) bool {
	if crossOrigin.Check(r) != nil {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() || r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// foreignSocket reports whether a page of another origin opens the WebSocket.
// Browsers let every page open one anywhere, and only name the page.
func foreignSocket(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !headerHas(r.Header, "Upgrade", "websocket") {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// identify tells who asks, before anything of the body is read.
func (x *exchange) identify() error {
	caller, err := x.s.Keys.Identify(x.r.Header)
	if err != nil {
		return err
	}
	if x.s.Keys.Open() && (foreign(x.r) || foreignSocket(x.r)) {
		return errCrossOrigin
	}
	team := x.s.Teams[caller.Team]
	if team == nil {
		return errInternal
	}
	x.team, x.class = team, team.Class
	x.limits = team.Limits
	if own := team.Keys[caller.Key]; len(own) > 0 {
		x.limits = append(own[:len(own):len(own)], team.Limits...)
	}
	x.rec.Team, x.rec.Key = caller.Team, caller.Key
	asked := x.r.Header.Get("X-Penstock-Class")
	c, known := limits.ParseClass(asked)
	if known {
		x.class = max(x.class, c) // a request may only lower its class
	}
	x.rec.Class = x.class.String()
	if asked != "" && !known {
		return errClass // a batch must not run before others for a slip of the pen
	}
	return nil
}
