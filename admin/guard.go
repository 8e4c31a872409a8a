package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// A Token lets its bearer use the admin API. Its name stands in the audit log.
type Token struct{ Name, Value string }

// local is the name of whoever asks on a listener without tokens, which is one on
// loopback.
const local = "loopback"

// A guard asks for one of the tokens.
type guard struct {
	names []string
	sums  [][sha256.Size]byte
	cross *http.CrossOriginProtection
}

func newGuard(tokens []Token) *guard {
	g := &guard{cross: http.NewCrossOriginProtection()}
	for _, t := range tokens {
		g.names, g.sums = append(g.names, t.Name), append(g.sums, sha256.Sum256([]byte(t.Value)))
	}
	return g
}

type actorKey struct{}

// Actor is the name of the token that a request was admitted by.
func Actor(r *http.Request) string {
	name, _ := r.Context().Value(actorKey{}).(string)
	return name
}

func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := g.who(r)
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, &Error{Status: http.StatusUnauthorized, Code: "invalid_admin_token", Message: "admin token required: send Authorization: Bearer <admin.token>"})
		case g.foreign(r):
			fail(w, &Error{Status: http.StatusForbidden, Code: "cross_site", Message: "this request was made by a page of another site; use a client that is no browser, or set admin.token"})
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, name)))
		}
	})
}

// who tells whose token a request carries. Hashes are compared, and all of them,
// so that the time taken tells nothing of the tokens or their lengths.
func (g *guard) who(r *http.Request) (name string, ok bool) {
	if len(g.sums) == 0 {
		return local, true
	}
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum, found := sha256.Sum256([]byte(given)), -1
	for i := range g.sums {
		if subtle.ConstantTimeCompare(g.sums[i][:], sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return g.names[found], true
}

// foreign reports whether a browser sends the request for a page of another site.
// Where no token is asked for, nothing else keeps that page from making keys; and
// a name that is not this machine's own may be one that the page has pointed here.
func (g *guard) foreign(r *http.Request) bool {
	if g.cross.Check(r) != nil {
		return true
	}
	if len(g.sums) > 0 {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}
