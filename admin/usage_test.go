package admin

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"penstock/database"
	"penstock/database/databasetest"
	"penstock/usage"
	"penstock/usage/ledger"
)

type noMetrics struct{}

func (noMetrics) LedgerWrote(int)   {}
func (noMetrics) LedgerDropped(int) {}
func (noMetrics) LedgerFailed()     {}

// usageServer is an admin listener with a ledger of n rows, one a minute since noon.
func usageServer(t *testing.T, n int) (*httptest.Server, *database.DB) {
	t.Helper()
	db := databasetest.Open(t, t.TempDir()+"/penstock.db")
	log := slog.New(slog.DiscardHandler)
	l := ledger.New(db, ledger.Config{Flush: time.Millisecond, Buffer: max(1, n), Metrics: noMetrics{}, Log: log})
	for i := range n {
		l.Record(&usage.Row{
			ID: fmt.Sprintf("req_%05d", i), Began: time.Date(2026, 11, 25, 12, i, 0, 0, time.UTC), Team: []string{"search", "=cmd()"}[i%2], Key: "prod",
			Model: "+SUM(A1)", Label: "m", Upstream: "up", Outcome: "ok", Status: 200, Tokens: usage.Tokens{Input: 10, Output: 2}, Nano: 1_000_000_001, Duration: 1500 * time.Millisecond,
		})
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	h := Handler(Config{Tokens: []Token{{"admin", "secret-admin-token"}}, API: (&UsageAPI{DB: db, Log: log}).Routes()})
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s, db
}

// An answer is what the admin listener answered.
type answer struct {
	status          int
	body            string
	header, trailer http.Header
}

func get(t *testing.T, s *httptest.Server, path string) answer {
	t.Helper()
	r, err := http.NewRequest("GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer secret-admin-token")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(b), resp.Header, resp.Trailer}
}

// covers SEC-04, SEC-06: usage is for bearers of an admin token, and for nobody else.
func TestUsageRoutesHaveRoles(t *testing.T) {
	s, _ := usageServer(t, 1)
	routes := (&UsageAPI{}).Routes()
	if len(routes) != 2 {
		t.Fatalf("%d routes; give a new one a row here", len(routes))
	}
	for _, r := range routes {
		if r.Open {
			t.Errorf("%s is open", r.Pattern)
		}
		for token, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer psk_a-client-key": 401, "Bearer secret-admin-token": 200} {
			_, path, _ := strings.Cut(r.Pattern, " ")
			req, err := http.NewRequest("GET", s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s with %q: %d", r.Pattern, token, resp.StatusCode)
			}
		}
	}
}

func TestUsageReport(t *testing.T) {
	s, _ := usageServer(t, 4)
	a := get(t, s, "/admin/usage?from=2026-11-01&to=2026-12-01&group_by=team,day")
	var report struct {
		From, To  string
		Truncated bool
		PricesOf  string `json:"prices_of"`
		Groups    []map[string]any
	}
	if err := json.Unmarshal([]byte(a.body), &report); err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %s", a.status, err, a.body)
	}
	if len(report.Groups) != 2 || report.From != "2026-11-01" || report.To != "2026-12-01" || report.Truncated || report.PricesOf == "" {
		t.Errorf("%s", a.body)
	}
	if g := report.Groups[1]; g["team"] != "search" || g["day"] != "2026-11-25" || g["requests"] != 2.0 || g["input_tokens"] != 20.0 || !strings.Contains(a.body, `"cost_usd": 2.000000002`) {
		t.Errorf("%v", g)
	}
	a = get(t, s, "/admin/usage?from=2026-11-01&to=2026-12-01&group_by=&format=csv&team=search")
	if want := "requests,failed,input_tokens,output_tokens,cached_tokens,cache_write_tokens,reasoning_tokens,cost_usd,unpriced\n2,0,20,4,0,0,0,2.000000002,0\n"; a.body != want {
		t.Errorf("%q, want %q", a.body, want)
	}
	if h := a.header; h.Get("Content-Type") != csvType || !strings.Contains(h.Get("Content-Disposition"), "usage.csv") || h.Get("X-Penstock-Truncated") != "false" {
		t.Errorf("%v", h)
	}
}

// What a client wrote is not run by a spreadsheet that opens the file.
func TestExportIsSafeForSpreadsheets(t *testing.T) {
	s, _ := usageServer(t, 2)
	for _, path := range []string{"/admin/usage/export?from=2026-11-01&to=2026-12-01", "/admin/usage?from=2026-11-01&to=2026-12-01&group_by=team&format=csv"} {
		body := get(t, s, path).body
		rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
		if err != nil || len(rows) != 3 {
			t.Fatalf("%v: %s", err, body)
		}
		for _, row := range rows {
			for _, c := range row {
				if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
					t.Errorf("%s: a cell is %q", path, c)
				}
			}
		}
	}
}

func TestUsageExport(t *testing.T) {
	s, _ := usageServer(t, 1200)
	a := get(t, s, "/admin/usage/export?from=2026-11-01&to=2026-12-01")
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil || len(rows) != 1201 || a.trailer.Get("X-Penstock-Truncated") != "false" || a.header.Get("Content-Type") != csvType {
		t.Fatalf("%d rows, %v, %v", len(rows), err, a.trailer)
	}
	if got := strings.Join(rows[1], ","); got != "2026-11-25T12:00:00.000000Z,req_00000,search,prod,'+SUM(A1),m,up,,,200,ok,0,false,0,0,1.5,10,2,0,0,0,,1.000000001,false" {
		t.Errorf("%s\n%s", rows[0], got)
	}
	a = get(t, s, "/admin/usage/export?format=json&from=2026-11-25T12:01:00Z&to=2026-12-01&limit=2")
	lines := strings.Split(strings.TrimSpace(a.body), "\n")
	var row map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &row); err != nil || len(lines) != 2 || row["request_id"] != "req_00001" || row["model"] != "+SUM(A1)" || row["cost_usd"] != 1.000000001 {
		t.Errorf("%v %s", err, a.body)
	}
	if a.trailer.Get("X-Penstock-Truncated") != "true" || a.header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%v %v", a.trailer, a.header)
	}
	if body := get(t, s, "/admin/usage/export?from=2020-01-01&to=2020-01-02").body; !strings.HasPrefix(body, "time,request_id,") || strings.Count(body, "\n") != 1 {
		t.Errorf("an empty export: %q", body)
	}
}

func TestUsageParameters(t *testing.T) {
	s, _ := usageServer(t, 1)
	for _, query := range []string{
		"?from=yesterday", "?to=2026-13-01", "?from=2026-11-02&to=2026-11-02", "?group_by=user", "?group_by=team,team", "?group_by=team,", "?format=xml",
		"?teem=search", "?team=a&team=b", "/export?from=2026-11-02&to=2026-11-01", "/export?limit=0", "/export?limit=1000001", "/export?limit=x", "/export?team=search",
		"/export?format=pdf", "/export?from=now",
	} {
		if a := get(t, s, "/admin/usage"+query); a.status != 400 || !strings.Contains(a.body, `"invalid_value"`) {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestUsageWithoutALedger(t *testing.T) {
	s := httptest.NewServer(Handler(Config{Tokens: []Token{{"admin", "secret-admin-token"}}, API: (&UsageAPI{Log: slog.New(slog.DiscardHandler)}).Routes()}))
	defer s.Close()
	if a := get(t, s, "/admin/usage"); a.status != 404 || !strings.Contains(a.body, "no_ledger") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A ledger that cannot be read is an error, and not an empty answer; an export that
// breaks off does not look whole.
func TestUsageOfABrokenLedger(t *testing.T) {
	s, db := usageServer(t, 3)
	drop := func(query string) {
		if err := db.Write(context.Background(), func(tx *database.Tx) error {
			_, err := tx.Exec(context.Background(), query)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	drop("UPDATE usage_rows SET status = 'no number' WHERE request_id = 'req_00001'")
	if a := get(t, s, "/admin/usage/export?from=2026-11-01&to=2026-12-01"); a.status != 503 || !strings.Contains(a.body, "ledger_unavailable") {
		t.Errorf("%d %s", a.status, a.body)
	}
	drop("DROP TABLE usage_days")
	if a := get(t, s, "/admin/usage"); a.status != 503 || strings.Contains(a.body, "usage_days") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestBrokenExportDoesNotLookWhole(t *testing.T) {
	s, db := usageServer(t, 1200)
	err := db.Write(context.Background(), func(tx *database.Tx) error {
		_, err := tx.Exec(context.Background(), "UPDATE usage_rows SET status = 'no number' WHERE request_id = 'req_01100'")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("GET", s.URL+"/admin/usage/export?from=2026-11-01&to=2026-12-01", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer secret-admin-token")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("read whole: %d bytes", len(b))
	}
}

// Exports are bounded in number.
func TestExportsAreBounded(t *testing.T) {
	a := &UsageAPI{DB: databasetest.Open(t, t.TempDir()+"/penstock.db"), Log: slog.New(slog.DiscardHandler)}
	h := a.Routes()[1].Handler
	for range exports {
		a.running <- struct{}{}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/admin/usage/export", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "export_busy") || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
