package protocol_test

import (
	"fmt"

	"github.com/tierstream/tierstream/internal/protocol"
)

// An owner died between the script that applied batch 1 and the transaction
// that publishes it. The next owner finds the batch in the outbox and
// publishes it as decided.
func ExampleMachine() {
	genesis := protocol.NewGenesis(protocol.Genesis{Incarnation: protocol.Nonce{1}, Partitions: 1}, protocol.State{})
	batch := &protocol.Record{Kind: protocol.KindBatch, Seq: 1}
	batch.Chain = protocol.NextChain(genesis.Chain, batch, protocol.Hash{})
	entry := &protocol.Entry{Seq: 1, Parent: genesis.Chain, Chain: batch.Chain, Journal: batch.Encode()}
	k := protocol.Published{Point: protocol.Point{Chain: genesis.Chain}, Offset: 0, LeaderEpoch: -1}

	var m protocol.Machine
	m.Acquired(&protocol.Fence{
		Identity:  protocol.Identity{Epoch: 2, Gen: 1, Point: entry.Point()}, // R = 1
		Published: k,
	}, []*protocol.Entry{entry}, false)
	fmt.Println(m.Phase())

	m.ProducerFenced() // the dead owner's transaction can no longer commit
	fmt.Println(m.Phase())

	m.Located(protocol.Scan{FirstAt: &k.Point, K: k}) // K = 0
	fmt.Println(m.Phase(), "with", len(m.Unpublished()), "batch to publish")

	m.Sending(1)
	m.Committed(protocol.Published{Point: entry.Point(), Offset: 2, LeaderEpoch: -1})
	_, drop := m.Trim()
	fmt.Println("the next script drops", drop)
	// Output:
	// fencing
	// locating
	// running with 1 batch to publish
	// the next script drops [1]
}
