package testenv

import (
	"bytes"
	"os"
	"path/filepath"
)

// LostMarkers says whether the broker has left out markers of transactions.
//
// When a coordinator loads transactions that are decided, it sends their
// markers; a partition that has no leader at that moment it takes for deleted
// and skips, and the transaction is complete for it (4.3,
// TransactionMarkerChannelManager). With one broker that was killed, all
// partitions are without a leader for a while. The record stays undecided for
// ever, and read committed nobody gets past it.
func (k *KafkaServer) LostMarkers() bool {
	b, err := os.ReadFile(filepath.Join(k.dir, outputName))
	return err == nil && bytes.Contains(b, []byte("these partitions are likely deleted already and hence can be skipped"))
}

// showMarkers lets the broker say so.
const showMarkers = "-Dorg.slf4j.simpleLogger.log.kafka.coordinator.transaction.TransactionMarkerChannelManager=info"
