// Package api is what others may ask of tierstream over HTTP without changing
// anything: whether an instance is alive and ready, and its metrics.
package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// readiness is the body of /readyz.
type readiness struct {
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons,omitempty"` // sorted; at least one unless Ready
	// Degraded is what works, but is not as it should be.
	Degraded []string `json:"degraded,omitempty"`
}

// Handler serves
//
//	/         what there is, as plain text
//	/healthz  200 as long as the process answers
//	/readyz   200 when ready returns nil, else 503 with every reason as JSON
//	/metrics  the given handler
//
// ready is called once per request and must not block; of a joined error
// (errors.Join) each part is a reason of its own. degraded says what works, but
// is not as it should be; it is shown and changes no answer. Every other path
// is 404, and every method but GET and HEAD is 405.
func Handler(ready func() error, metrics http.Handler, degraded ...func() []string) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, index)
	})
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]bool{"alive": true})
	})
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var also []string
		for _, f := range degraded {
			also = append(also, f()...)
		}
		if why := reasons(ready()); why != nil {
			reply(w, http.StatusServiceUnavailable, readiness{Reasons: why, Degraded: also})
			return
		}
		reply(w, http.StatusOK, readiness{Ready: true, Degraded: also})
	})
	m.Handle("GET /metrics", metrics)
	return m
}

const index = `tierstream

/healthz   is the process alive?
/readyz    does every partition that is owned here run? 503 with the reasons if not
/metrics   counters and timings, for Prometheus

A customer's live value:  tierctl customer ID
`

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller has gone away
}

// reasons flattens joined errors; nil for nil. They are sorted, because the
// order of partitions is no order.
func reasons(err error) []string {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, reasons(e)...)
	}
	slices.Sort(all)
	return all
}
