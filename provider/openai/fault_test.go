package openai

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock/provider"
)

// covers UP-03
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		seconds, millis string
		want            time.Duration
	}{
		{"2", "", 2 * time.Second}, {" 2 ", "", 2 * time.Second}, {"0.25", "", 250 * time.Millisecond}, {"0", "", 0}, {"-5", "", 0},
		{"", "", 0}, {"soon", "", 0}, {"NaN", "", 0}, {"Inf", "", time.Hour}, {"-Inf", "", 0}, {"1e300", "", time.Hour}, {"99999999999999999999", "", time.Hour},
		{"3601", "", time.Hour}, {"5", "1500", 1500 * time.Millisecond}, {"5", "x", 5 * time.Second}, {"5", "-1", 0}, {"0x10p0", "", 16 * time.Second},
		{"Wed, 25 Nov 2026 08:00:07 GMT", "", 7 * time.Second}, {"Wed, 25 Nov 2026 07:59:59 GMT", "", 0}, {"Fri, 25 Nov 2099 08:00:00 GMT", "", time.Hour},
		{"Wednesday, 25-Nov-26 08:00:07 GMT", "", 7 * time.Second}, {"Wed, 31 Feb 2026 08:00:00 GMT", "", 0},
	} {
		h := http.Header{}
		if c.seconds != "" {
			h.Set("Retry-After", c.seconds)
		}
		if c.millis != "" {
			h.Set("Retry-After-Ms", c.millis)
		}
		if got := RetryAfter(h, now); got != c.want {
			t.Errorf("Retry-After %q, ms %q: %v, want %v", c.seconds, c.millis, got, c.want)
		}
	}
}

// covers UP-03
func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"2", "0.5", "-1", "NaN", "Inf", "1e308", "0x1p-2", "Wed, 25 Nov 2026 08:00:07 GMT", "  7", "١"} {
		f.Add(s, "")
		f.Add("", s)
	}
	now := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, seconds, millis string) {
		h := http.Header{"Retry-After": {seconds}, "Retry-After-Ms": {millis}}
		if d := RetryAfter(h, now); d < 0 || d > time.Hour {
			t.Errorf("%q, %q: %v", seconds, millis, d)
		}
	})
}

func limitHeaders(limit, remaining, reset string) http.Header {
	return http.Header{
		"X-Ratelimit-Limit-Tokens": {limit}, "X-Ratelimit-Remaining-Tokens": {remaining}, "X-Ratelimit-Reset-Tokens": {reset},
	}
}

func TestRateLimits(t *testing.T) {
	for _, c := range []struct {
		limit, remaining, reset string
		want                    Stated
		ok                      bool
	}{
		{"1000", "900", "6s", Stated{1000, 900, 6 * time.Second}, true},
		{"1000", "900", "1m30.5s", Stated{1000, 900, 90500 * time.Millisecond}, true},
		{"1000", "900", "12", Stated{1000, 900, 12 * time.Second}, true}, // Azure
		{"1000", "0", "", Stated{1000, 0, 0}, true},
		{"", "5", "", Stated{0, 5, 0}, true},
		{"1000", "", "6ms", Stated{1000, -1, 6 * time.Millisecond}, true},
		{"0", "-1", "1s", Stated{0, -1, time.Second}, false},
		{"-5", "x", "NaN", Stated{0, -1, 0}, false},
		{"9223372036854775807", "9223372036854775807", "9999999h", Stated{0, maxStated, 0}, true},
		{"99999999999999999999", "1e3", "-5s", Stated{0, -1, 0}, false},
		{"1000000000000", "1", "8784h", Stated{maxStated, 1, 366 * 24 * time.Hour}, true},
	} {
		_, got, ok := RateLimits(limitHeaders(c.limit, c.remaining, c.reset))
		if got != c.want || ok != c.ok {
			t.Errorf("%q %q %q: %+v %v, want %+v %v", c.limit, c.remaining, c.reset, got, ok, c.want, c.ok)
		}
	}
}

func FuzzRateLimits(f *testing.F) {
	f.Add("1000", "900", "6s")
	f.Add("9223372036854775807", "-1", "1e9")
	f.Add("", "1", "1h0m0.5s")
	f.Add("0", "0", "NaN")
	f.Fuzz(func(t *testing.T, limit, remaining, reset string) {
		_, s, ok := RateLimits(limitHeaders(limit, remaining, reset))
		if s.Limit < 0 || s.Limit > maxStated || s.Remaining < -1 || s.Remaining > maxStated || s.Reset < 0 || s.Reset > 366*24*time.Hour {
			t.Errorf("%q %q %q: %+v", limit, remaining, reset, s)
		}
		if ok != (s.Limit > 0 || s.Remaining >= 0) {
			t.Errorf("%q %q %q: %+v, ok %v", limit, remaining, reset, s, ok)
		}
	})
}

// Codes are a bounded set, whatever statuses an upstream invents.
// covers RES-01
func TestStatusCodesAreBounded(t *testing.T) {
	codes := map[string]bool{}
	for status := 400; status < 1000; status++ {
		_, code := classify(status, "", "", false)
		codes[code] = true
	}
	if len(codes) > 60 || !codes["status_429"] || !codes["status_529"] || !codes["status_4xx"] || !codes["status_5xx"] {
		t.Errorf("%d codes: %v", len(codes), codes)
	}
}

// An answer that is no answer is a fault of the upstream: nothing of it is passed
// on.
func TestUnaskedUpgradeIsAFault(t *testing.T) {
	for _, status := range []int{99, 100, 101, 199} {
		body := &pieces{data: []byte("x"), err: io.EOF}
		_, err := Adapter{}.Reply(&provider.Target{}, &provider.Call{}, &http.Response{StatusCode: status, Body: body, Header: http.Header{}})
		var e *provider.Error
		if !errors.As(err, &e) || e.Kind != provider.KindHealth || e.Code != "protocol" {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestLongErrorsAreNotPassedOn(t *testing.T) {
	const begin, end = `{"error":{"message":"`, `"}}`
	for size, whole := range map[int]bool{100: true, maxErrorBody: true, maxErrorBody + 1: false} {
		text := strings.Repeat("x", size-len(begin)-len(end))
		body := &pieces{data: []byte(begin + text + end), sizes: []byte{255}, err: io.EOF}
		e := failed(&provider.Target{}, &provider.Call{}, &http.Response{StatusCode: 404, Body: body, Header: http.Header{}})
		if whole != strings.Contains(string(e.Body), text) || !whole && len(e.Body) > 1000 {
			t.Errorf("%d of %d bytes", len(e.Body), size)
		}
	}
}

// covers UP-04: whose fault a broken attempt is.
func TestBroken(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	late := &net.OpError{Op: "dial", Err: timeoutError{}}
	own := &provider.Error{Kind: provider.KindHealth, Code: "idle_timeout"}
	for _, c := range []struct {
		err, cause error
		kind       provider.Kind
		code       string
	}{
		{dial, nil, provider.KindHealth, "connect"},
		{late, nil, provider.KindHealth, "connect_timeout"},
		{fmt.Errorf("x: %w", io.ErrUnexpectedEOF), nil, provider.KindHealth, "truncated"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, nil, provider.KindHealth, "dns"},
		{errors.New("net/http: TLS handshake timeout"), nil, provider.KindHealth, "connect_timeout"},
		{errors.New("read: connection reset by peer"), nil, provider.KindHealth, "reset"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, nil, provider.KindCapacity, "descriptors"},
		{dial, errors.New("the client has left"), provider.KindCancelled, "cancelled"},
		{dial, own, provider.KindHealth, "idle_timeout"},
	} {
		e := Broken(c.err, c.cause)
		if e.Kind != c.kind || e.Code != c.code {
			t.Errorf("%v because of %v: %v %s, want %v %s", c.err, c.cause, e.Kind, e.Code, c.kind, c.code)
		}
	}
}

// covers UP-07: what keeps a secure connection from coming about is told apart from
// one that breaks.
func TestNoSecureConnection(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = quiet
	untrusted.StartTLS()
	defer untrusted.Close()
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.TLS, old.Config.ErrorLog = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, quiet
	old.StartTLS()
	defer old.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for name, url := range map[string]string{"untrusted": untrusted.URL, "old": old.URL, "plain": strings.Replace(plain.URL, "http:", "https:", 1)} {
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			t.Fatalf("%s: answered", name)
		}
		if e := Broken(err, nil); e.Code != "tls" || e.Kind != provider.KindHealth {
			t.Errorf("%s: %v is %s", name, err, e.Code)
		}
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
