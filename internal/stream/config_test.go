package stream

import (
	"strings"
	"testing"
)

func TestRefusesNamesThatWouldMixStates(t *testing.T) {
	valid := func() Config {
		inputs := []string{"purchases", "complaints", "referrals"}
		return Config{Namespace: "live", Topics: DefaultTopics("live", inputs), Rules: testRules(inputs...)}
	}
	good := valid()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for text, change := range map[string]func(*Config){
		"want 1 to 64":                    func(c *Config) { c.Namespace = "" },
		"want lower-case":                 func(c *Config) { c.Namespace = "Live" },
		"belong to replays":               func(c *Config) { c.Namespace = "replay-x" },
		"no topic for the journal":        func(c *Config) { c.Topics.Journal = "" },
		"named for the":                   func(c *Config) { c.Topics.Values = c.Topics.Changes },
		"is an input and the topic of":    func(c *Config) { c.Topics.Values = "purchases" },
		"is an input and the topic of th": func(c *Config) { c.Topics.Changes = "referrals" },
	} {
		c := valid()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}
