package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCheckIsTheStatus(t *testing.T) {
	for status, healthy := range map[int]bool{http.StatusOK: true, http.StatusServiceUnavailable: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		if err := check(server.URL); (err == nil) != healthy {
			t.Errorf("status %d: %v", status, err)
		}
		server.Close()
		if err := check(server.URL); err == nil {
			t.Error("a server that is away is healthy")
		}
	}
}
