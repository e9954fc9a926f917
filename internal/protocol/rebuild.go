package protocol

import "fmt"

// Cause says why a partition's state is built again.
type Cause uint8

const (
	NoCause Cause = iota

	// Why the state in Redis cannot be continued. It is rebuilt from the genesis.

	NoState     // Redis holds nothing of the partition
	Abandoned   // an earlier rebuild did not end
	OtherBranch // the state stands at a point that is neither in the journal nor continues it
	WrongState  // it is not what the fence says it is: keys are missing, or a re-apply gave another chain
	Interrupted // a rebase did not end

	// Why, moreover, re-applying the journal cannot lead to K. Only a rebase can.

	LogTruncated     // an input begins beyond what is to be re-applied
	JournalTruncated // the journal begins beyond it, or beyond the genesis
	RulesUnknown     // the rules topic does not hold rules that the journal names, or this binary reads them as others
	FoldVersion      // batches of a fold version that this binary cannot repeat
	BehindRebase     // a rebase lies between: what it wrote is not in the log

	numCauses
)

var causes = [numCauses]string{
	"", "no_state", "abandoned", "other_branch", "wrong_state", "interrupted",
	"log_truncated", "journal_truncated", "rules_unknown", "fold_version", "behind_rebase",
}

func (c Cause) String() string {
	if c >= numCauses {
		return fmt.Sprintf("cause %d", uint8(c))
	}
	return causes[c]
}

// ParseCause reads what String writes.
func ParseCause(s string) (Cause, error) {
	for c, t := range causes {
		if t == s {
			return Cause(c), nil
		}
	}
	return 0, fmt.Errorf("unknown cause %q", s)
}

// Causes are all causes, each once.
func Causes() []Cause {
	all := make([]Cause, 0, numCauses-1)
	for c := NoCause + 1; c < numCauses; c++ {
		all = append(all, c)
	}
	return all
}

// Rebuild is what recovery decided to do when there is nothing to continue.
type Rebuild struct {
	// Cause is why the state cannot be continued; NoCause when it is intact.
	Cause Cause
	// Blocked is why re-applying the journal cannot lead to K, so that a rebase
	// must; NoCause when it can.
	Blocked Cause
	// Base is the key generation whose state is intact and lies on the journal,
	// for a rebase to begin from; 0 when there is none. It must not be deleted
	// until the rebase is done.
	Base uint64
}

// Rebase is what a journal record says that belongs to a rebase: a cut in the
// history, behind which the log alone no longer explains the state. A series of
// such records, the first one's parent being K, visits every customer once.
type Rebase struct {
	Cause Cause // why nothing less would do
	Last  bool  // of the series
	// From is, per input, the first offset whose records the facts are folded
	// from. Based: what came before it is kept as Redis had it; else it is
	// missing from the facts.
	From  []int64
	Based bool
	// Genesis stands in for the journal's first record, should that be gone.
	Genesis Genesis
}

// Rebased is the newest rebase as the fence knows it.
type Rebased struct {
	Seq   uint64 // of its newest record; 0: there was none
	Cause Cause
	Open  bool // it is not done
}
