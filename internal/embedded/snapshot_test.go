package embedded

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
)

func sampleSnapshot(t *testing.T) (path string) {
	t.Helper()
	m := miniredis.NewMiniRedis()
	if err := m.Set("s\x00\xff", "v\xfe"); err != nil {
		t.Fatal(err)
	}
	m.HSet("h", "f\x80", "")
	if _, err := m.ZAdd("z", 1.5, "\x00"); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "snapshot")
	if err := saveSnapshot(m, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSnapshotRoundTrip(t *testing.T) {
	m := miniredis.NewMiniRedis()
	if err := loadSnapshot(m, sampleSnapshot(t)); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Get("s\x00\xff"); err != nil || v != "v\xfe" {
		t.Errorf("string %q, %v", v, err)
	}
	if keys, err := m.HKeys("h"); err != nil || len(keys) != 1 || keys[0] != "f\x80" || m.HGet("h", "f\x80") != "" {
		t.Errorf("hash %q, %v", keys, err)
	}
	if score, err := m.ZScore("z", "\x00"); err != nil || score != 1.5 {
		t.Errorf("sorted set %v, %v", score, err)
	}
	if len(m.Keys()) != 3 {
		t.Errorf("want three keys, got\n%s", m.Dump())
	}
}

// Every single damaged byte and every cut is refused, with what to do.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	path := sampleSnapshot(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, text []byte, says string) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		err := loadSnapshot(miniredis.NewMiniRedis(), path)
		if err == nil {
			t.Fatalf("%s was loaded", what)
		}
		for _, want := range []string{says, path, "delete the file to go on: the state is rebuilt from the journal"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the message does not say %q: %v", what, want, err)
			}
		}
	}
	for i := range sound {
		text := bytes.Clone(sound)
		text[i] ^= 0x40
		says := "damaged"
		if i == len(snapshotMagic)-1 {
			says = "version 65"
		}
		refused("a snapshot with a changed byte", text, says)
		refused("a cut snapshot", sound[:i], "damaged")
	}
	refused("a longer snapshot", append(bytes.Clone(sound), 0), "damaged")
}

// What a snapshot cannot hold is named; the rest is kept.
func TestSnapshotNamesWhatItLeavesOut(t *testing.T) {
	m := miniredis.NewMiniRedis()
	if _, err := m.Push("list", "x"); err != nil {
		t.Fatal(err)
	}
	if err := m.Set("kept", "v"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "snapshot")
	if err := saveSnapshot(m, path); err == nil || !strings.Contains(err.Error(), `"list"`) {
		t.Errorf("the list is not named: %v", err)
	}
	loaded := miniredis.NewMiniRedis()
	if err := loadSnapshot(loaded, path); err != nil {
		t.Fatal(err)
	}
	if v, err := loaded.Get("kept"); err != nil || v != "v" {
		t.Errorf("kept %q, %v", v, err)
	}
}
