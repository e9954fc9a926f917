package webhook

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Schedule is when a failed delivery is tried again: the pauses between its
// attempts, ten in all over three days, as the specification suggests them.
var Schedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// jitter is the share by which a pause is longer or shorter by chance, so that
	// what failed together does not come back together.
	jitter = 0.1

	// Pauses of a whole endpoint that says it has too much to do but not for how
	// long: doubled with each such answer.
	throttleMin = 5 * time.Second
	throttleMax = 5 * time.Minute
	// maxRetryAfter bounds what an endpoint may ask for.
	maxRetryAfter = 24 * time.Hour
)

func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*rand.Float64()))
}

// span is how long a schedule takes in all.
func span(schedule []time.Duration) (d time.Duration) {
	for _, pause := range schedule {
		d += pause
	}
	return d
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date.
// It is 0 when there is none, and at least a second when there is.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if text == "" {
		return 0
	}
	var d time.Duration
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = t.Sub(now)
	} else {
		return 0
	}
	return min(max(d, time.Second), maxRetryAfter)
}
