package proxy

import "net/http"

// Web pages may call the gateway from a browser where a client key is asked for:
// the page has to hold one, and no cookie stands in for it. Where none is asked for,
// any page could spend the gateway's own credential, so none may.

// exposeToPages lets a page of any origin read the answer and its headers.
func (x *exchange) exposeToPages() {
	if x.r.Header["Origin"] == nil || x.s.Keys.Open() {
		return
	}
	h := x.out.w.Header()
	h["Access-Control-Allow-Origin"] = []string{"*"}
	h["Access-Control-Expose-Headers"] = []string{"*"}
}

// preflight answers the question that a browser asks before it sends a page's
// request (Fetch standard, section 3.2.2). It carries no key, and never goes to an
// upstream.
func (x *exchange) preflight() (done bool, err error) {
	asked := x.r.Header["Access-Control-Request-Method"]
	if x.r.Method != http.MethodOptions || x.r.Header["Origin"] == nil || asked == nil {
		return false, nil
	}
	x.rec.Operation, x.rec.Method = "preflight", x.r.Method
	if x.s.Keys.Open() {
		return true, errCrossOrigin
	}
	h := x.out.w.Header()
	h["Access-Control-Allow-Methods"] = []string{"GET, HEAD, POST, PUT, PATCH, DELETE"}
	if names := x.r.Header["Access-Control-Request-Headers"]; names != nil {
		h["Access-Control-Allow-Headers"] = names
	}
	h["Access-Control-Max-Age"] = []string{"7200"}
	x.own(h)
	x.rec.Outcome, x.rec.Status = "ok", http.StatusNoContent
	x.leaveUnread()
	x.out.begin(http.StatusNoContent, -1)
	return true, nil
}
