package event

import "testing"

// Codes, types, statuses and kinds are stored by number: this list only grows.
func TestNumbersThatAreStoredNeverChange(t *testing.T) {
	for i, want := range []string{
		"applied", "malformed", "unknown_type", "unsupported_version", "missing_field", "wrong_type", "bad_id",
		"misrouted", "bad_time", "future_time", "late", "too_late", "duplicate", "id_conflict", "business_duplicate",
		"business_conflict", "bad_amount", "negative_purchase", "zero_purchase", "bad_currency", "no_rate",
		"currency_changed", "orphan_return", "over_return", "bad_severity", "bad_status", "bad_score", "bad_cost",
		"unusual_transition", "self_referral", "test_event", "unpaid", "waiting",
	} {
		if got := Code(i).String(); got != want {
			t.Errorf("code %d is %q, was %q", i, got, want)
		}
	}
	for i, want := range []string{"", "purchase", "return", "complaint", "referral", "feedback", "cost"} {
		if got := Type(i).String(); got != want {
			t.Errorf("type %d is %q, was %q", i, got, want)
		}
	}
	for i, want := range []string{"", "opened", "resolved", "reopened", "rejected", "invited", "converted", "reversed"} {
		if got := Status(i).String(); got != want {
			t.Errorf("status %d is %q, was %q", i, got, want)
		}
	}
	for i, want := range []string{"", "nps", "csat", "ces", "praise", "suggestion", "acquisition", "service",
		"marketing", "sales", "goods", "cancelled", "store_credit", "chargeback"} {
		if got := Kind(i).String(); got != want {
			t.Errorf("kind %d is %q, was %q", i, got, want)
		}
	}
}

func TestTypesHaveShortNames(t *testing.T) {
	for typ := Purchase; typ <= Cost; typ++ {
		if got, ok := ParseType(typ.String()); !ok || got != typ {
			t.Errorf("%s: %d, %t", typ, got, ok)
		}
	}
	for _, name := range []string{"", "Purchase", "merge", Purchase.URI()} {
		if got, ok := ParseType(name); ok {
			t.Errorf("%q is %s", name, got)
		}
	}
}

func TestWordsBelongToOneType(t *testing.T) {
	for s := Opened; s <= Reversed; s++ {
		for typ := Purchase; typ <= Cost; typ++ {
			got, ok := ParseStatus(typ, s.String())
			if want := statuses[s].of == typ; ok != want || ok && got != s {
				t.Errorf("status %q of a %s: %d, %t", s, typ, got, ok)
			}
		}
	}
	for k := NPS; k <= Chargeback; k++ {
		for typ := Purchase; typ <= Cost; typ++ {
			got, ok := ParseKind(typ, k.String())
			if want := kinds[k].of == typ; ok != want || ok && got != k {
				t.Errorf("kind %q of a %s: %d, %t", k, typ, got, ok)
			}
		}
	}
}
