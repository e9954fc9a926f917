package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func ask(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestHandlerSaysWhyItIsNotReady(t *testing.T) {
	var state error
	var also []string
	h := Handler(func() error { return state }, http.NotFoundHandler(), func() []string { return also })

	w := ask(t, h, "GET", "/readyz")
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"ready":true}` {
		t.Errorf("ready: %d %s", w.Code, w.Body)
	}

	also = []string{"partition 2: rebased"}
	w = ask(t, h, "GET", "/readyz")
	if w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"ready":true,"degraded":["partition 2: rebased"]}` {
		t.Errorf("degraded: %d %s", w.Code, w.Body)
	}

	state = errors.Join(errors.New("the clocks differ"), errors.Join(
		fmt.Errorf("partition 3: %w", errors.New("acquiring")), errors.New("partition 1: stopped")))
	w = ask(t, h, "GET", "/readyz")
	var got readiness
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := []string{"partition 1: stopped", "partition 3: acquiring", "the clocks differ"}
	if w.Code != http.StatusServiceUnavailable || got.Ready || !slices.Equal(got.Reasons, want) {
		t.Errorf("not ready: %d %+v, want 503 and %q", w.Code, got, want)
	}
	if c := w.Header().Get("Content-Type"); c != "application/json" {
		t.Errorf("content type %q", c)
	}
	if w := ask(t, h, "GET", "/healthz"); w.Code != http.StatusOK {
		t.Errorf("alive although not ready: %d", w.Code)
	}
}

func TestHandlerServesNothingElse(t *testing.T) {
	h := Handler(func() error { return nil }, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "records_total 7\n")
	}))
	if w := ask(t, h, "GET", "/metrics"); w.Body.String() != "records_total 7\n" {
		t.Errorf("metrics: %q", w.Body)
	}
	if w := ask(t, h, "GET", "/"); !strings.Contains(w.Body.String(), "/readyz") || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("index: %q", w.Body)
	}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/nothing", http.StatusNotFound},
		{"POST", "/readyz", http.StatusMethodNotAllowed},
		{"DELETE", "/metrics", http.StatusMethodNotAllowed},
		{"HEAD", "/healthz", http.StatusOK},
	} {
		if w := ask(t, h, c.method, c.path); w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}
