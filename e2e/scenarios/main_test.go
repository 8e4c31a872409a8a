package scenarios

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
)

// figures is one row of the table at the end. Empty is printed as a dash.
type figures struct {
	Scenario string
	Success  string // share of requests that clients saw succeed
	Refused  string // share of attempts that the provider answered with 429
	Used     string // share of the provider's quota that was used
	Makespan string // time for all of it ÷ the least possible
	Share    string // error of the shares of teams
	Light    string // 95th percentile of the light team's wait
	Attempts string // attempts at the provider for each request
	Leaks    string // what was left behind
	Memory   string // of the gateway for each open stream
	Note     string
}

// number is that of the scenario.
func (f figures) number() (n int) {
	_, _ = fmt.Sscanf(f.Scenario, "S%d", &n)
	return n
}

var table struct {
	mu   sync.Mutex
	rows []figures
}

// record puts a row into the table, in place of that of an earlier round.
func record(f figures) {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.rows = append(slices.DeleteFunc(table.rows, func(r figures) bool { return r.Scenario == f.Scenario }), f)
}

func TestMain(m *testing.M) {
	// Scenarios that mostly wait run side by side, however few cores there are.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := m.Run()
	print(os.Stdout)
	os.Exit(code)
}

func print(out io.Writer) {
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.rows) == 0 {
		return
	}
	slices.SortFunc(table.rows, func(a, b figures) int {
		return cmp.Or(cmp.Compare(a.number(), b.number()), strings.Compare(a.Scenario, b.Scenario))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nscenario\tsuccess\tprovider 429\tquota used\tmakespan/ideal\tshare error\tlight p95 wait\tattempts/request\tleaks\tmemory/stream\tnote")
	for _, r := range table.rows {
		for i, v := range []string{r.Scenario, r.Success, r.Refused, r.Used, r.Makespan, r.Share, r.Light, r.Attempts, r.Leaks, r.Memory, r.Note} {
			if v == "" {
				v = "-"
			}
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, v)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

func percent(part, whole float64) string {
	if whole == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f %%", 100*part/whole)
}
