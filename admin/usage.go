package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"penstock/database"
	"penstock/usage"
	"penstock/usage/ledger"
)

const (
	// exports is how many exports may run at once.
	exports = 2
	// syncFor bounds the wait for rows that are not written yet, as SQLite bounds its
	// own for a lock.
	syncFor = 5 * time.Second
	// exportPause bounds one write to whoever reads an export.
	exportPause = 30 * time.Second
	// reportFor bounds the query of a report, exportFor a whole export.
	reportFor, exportFor = 30 * time.Second, 30 * time.Minute
	// flushEvery is how many rows are sent at once.
	flushEvery = 500
)

// A UsageAPI answers what was used. It is safe for concurrent use.
type UsageAPI struct {
	DB      *database.DB   // nil without a ledger
	Ledger  *ledger.Ledger // what this gateway has counted; nil where it counts nothing
	Log     *slog.Logger
	running chan struct{}
}

// Routes are its paths.
func (a *UsageAPI) Routes() []Route {
	a.running = make(chan struct{}, exports)
	return []Route{
		{"GET /admin/usage", false, a.handler(a.report)},
		{"GET /admin/usage/export", false, a.handler(a.export)},
	}
}

func (a *UsageAPI) handler(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.DB == nil {
			fail(w, &Error{Status: http.StatusNotFound, Code: "no_ledger", Message: "this gateway keeps no usage ledger; set database.url, and see that usage.disabled is not set"})
			return
		}
		if a.Ledger != nil {
			ctx, cancel := context.WithTimeout(r.Context(), syncFor)
			a.Ledger.Sync(ctx)
			cancel()
		}
		if err := do(w, r); err != nil {
			fail(w, err)
		}
	})
}

// report sums usage up by whole days.
func (a *UsageAPI) report(w http.ResponseWriter, r *http.Request) error {
	q, format, err := ledger.ParseReport(r.URL.Query(), time.Now())
	if err != nil {
		return wrong(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), reportFor)
	defer cancel()
	groups, cut, err := ledger.Report(ctx, a.DB, q)
	if err != nil {
		return a.unreadable(err)
	}
	kind := "application/json"
	if format == ledger.CSV {
		kind = csvType
	}
	download(w, kind, "usage", format)
	w.Header().Set("X-Penstock-Truncated", strconv.FormatBool(cut))
	_ = ledger.WriteReport(w, format, q, groups, cut) // whoever asked may have left
	return nil
}

func (a *UsageAPI) unreadable(err error) error {
	a.Log.Error("the usage ledger cannot be read", "error", err.Error())
	return &Error{Status: http.StatusServiceUnavailable, Code: "ledger_unavailable", Message: "the usage ledger cannot be read now; the gateway's log says why"}
}

// export streams rows.
func (a *UsageAPI) export(w http.ResponseWriter, r *http.Request) error {
	q, err := ledger.ParseExport(r.URL.Query(), time.Now())
	if err != nil {
		return wrong(err)
	}
	select {
	case a.running <- struct{}{}:
		defer func() { <-a.running }()
	default:
		return &Error{Status: http.StatusServiceUnavailable, Code: "export_busy", Message: "as many exports are running as may; try again later"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), exportFor)
	defer cancel()
	kind := "application/x-ndjson"
	if q.Format == ledger.CSV {
		kind = csvType
	}
	control, rows := http.NewResponseController(w), 0
	var out *ledger.RowWriter
	// The status goes out with the first row, so that a database that cannot be read
	// is an error, and not an empty export.
	begin := func() (err error) {
		download(w, kind, "usage-export", q.Format)
		w.Header().Set("Trailer", "X-Penstock-Truncated")
		out, err = ledger.NewRowWriter(w, q.Format)
		return err
	}
	err = ledger.Export(ctx, a.DB, q.From, q.To, q.Most, func(row *usage.Row) error {
		if out == nil {
			if err := begin(); err != nil {
				return err
			}
		}
		if rows%flushEvery == 0 {
			if err := control.SetWriteDeadline(time.Now().Add(exportPause)); err != nil {
				return err
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
		rows++
		return out.Write(row)
	})
	switch {
	case err != nil && out == nil:
		return a.unreadable(err)
	case err == nil && out == nil:
		err = begin()
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		a.Log.Warn("an export of the usage ledger was broken off", "rows", rows, "error", err.Error())
		panic(http.ErrAbortHandler) // so that what was cut does not look whole
	}
	w.Header().Set("X-Penstock-Truncated", strconv.FormatBool(rows == q.Most))
	return nil
}

// wrong turns the error of a parameter into what the caller is told.
func wrong(err error) error {
	var e *ledger.ParameterError
	if errors.As(err, &e) {
		return &Error{Status: http.StatusBadRequest, Code: "invalid_value", Param: clip(e.Name), Message: clip(e.Error())}
	}
	return err
}

const csvType = "text/csv; charset=utf-8"

func download(w http.ResponseWriter, kind, name, format string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if format == ledger.CSV {
		h.Set("Content-Disposition", `attachment; filename="`+name+`.csv"`)
	}
}
