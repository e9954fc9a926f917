#!/usr/bin/env python3
"""Acts on every tier change exactly once, by the contract's one line: read
committed, remember the highest sequence per customer, ignore what is not above
it, on a gap read the customer's state.

The effect is a line in a file: customer, sequence, data. The file is the
memory, too, so that "done" and "how far" are one write. It serves one process;
several need a shared memory, because partitions move between them.

Needs confluent-kafka.
"""

import argparse
import signal
import sys

from confluent_kafka import Consumer, KafkaException


class Ledger:
    """What was done, and by it how far each customer is."""

    def __init__(self, path):
        self.file = open(path, "a+b", buffering=0)
        self.highest = {}
        self.file.seek(0)
        whole = 0
        for line in self.file:
            if not line.endswith(b"\n"):
                break  # was never finished
            customer, sequence, _ = line.split(b"\t", 2)
            self.highest[customer] = int(sequence)
            whole += len(line)
        self.file.truncate(whole)

    def take(self, message):
        headers = dict(message.headers() or [])
        customer = headers["ce_subject"]
        sequence = int(headers["ce_customerseq"])
        before = self.highest.get(customer, 0)
        if sequence <= before:
            return  # delivered again
        if sequence > before + 1:
            # This change says the customer's tier all the same. What came
            # between is in the customer's state: tierctl customer ID --json.
            print(f"gap: customer {customer.decode()} goes from {before} to {sequence}", file=sys.stderr)
        self.file.write(b"%s\t%d\t%s\n" % (customer, sequence, message.value()))
        self.highest[customer] = sequence


def main():
    parser = argparse.ArgumentParser(description="Acts on every tier change exactly once.")
    parser.add_argument("brokers")
    parser.add_argument("topic")
    parser.add_argument("group")
    parser.add_argument("file")
    parser.add_argument("--isolation", default="read_committed", choices=["read_committed", "read_uncommitted"],
                        help="read_uncommitted shows what such a consumer sees; never use it")
    args = parser.parse_args()

    consumer = Consumer({
        "bootstrap.servers": args.brokers,
        "group.id": args.group,
        # A restarted process takes its partitions back at once, without
        # waiting for a session to end.
        "group.instance.id": args.group + "-1",
        "isolation.level": args.isolation,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    stopping = False

    def stop(*_):
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ledger = Ledger(args.file)
    consumer.subscribe([args.topic])
    try:
        while not stopping:
            messages = consumer.consume(500, timeout=0.5)
            for message in messages:
                if message.error():
                    raise KafkaException(message.error())
                ledger.take(message)
            if messages:
                # After the effect: a crash before this delivers again.
                consumer.commit(asynchronous=False)
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
