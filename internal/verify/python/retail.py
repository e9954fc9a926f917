#!/usr/bin/env python3
"""Orders, returns, recency, frequency and money of every customer of the UCI
Online Retail log.

Usage: retail.py online_retail.csv.gz AS_OF

An independent reading of the written rules (internal/sim/UCI.md), in the
standard library only, to be compared with the program's export and its dead
letters. AS_OF is the local date of evaluation. Prints CSV, one row per
customer in the order of their IDs:

  customer     ID without ".0"
  orders       purchases that are not fully returned; lifetime
  returns      returns that found their order
  net          money of the orders less those returns, in pence; lifetime
  r_days       days from the last such order to AS_OF; empty without one
  f_orders     such orders of the days d with 0 <= AS_OF - d < 365
  m_net        their net money in pence
  r_score, f_score, m_score   1 to 5, by the default cut points
  refused      the other returns, as ID=pence, sorted

and on standard error the rows left out, by rule.
"""

import collections
import csv
import datetime
import gzip
import sys

WINDOW_DAYS = 365
TYPICAL_ORDER = 3500  # pence, as given to the model
GRACE = datetime.timedelta(days=7)
MAX_ORDERS, MAX_IDS = 128, 256  # what the consumer remembers of a customer

RECENCY = (30, 60, 90, 180)
FREQUENCY = (1, 2, 4, 8)
MONEY = (1, 2, 4, 8)

Note = collections.namedtuple("Note", "when number lines")


def thousandths(text):
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text)
    whole, _, rest = text.partition(".")
    return sign * (int(whole) * 1000 + int(rest.ljust(3, "0")))


def rule_against(number, stock, customer, units, price):
    """The first rule by which a row is left out, or None."""
    credit = number.startswith("C")
    if not customer:
        return "without a customer"
    if not number[credit:].isdigit():
        return "adjustments of the books"
    if not (stock[:5].isdigit() and len(stock) >= 5):
        return "not goods"
    if price <= 0:
        return "without a price above 0"
    if units == 0 or (units < 0) != credit:
        return "of the wrong sign"
    return None


def documents(path):
    """Invoices and notes by customer: {customer: {number: [when, [(stock, units, pence)]]}}."""
    found, left_out = collections.defaultdict(dict), collections.Counter()
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            number, stock = row["InvoiceNo"], row["StockCode"]
            customer = row["CustomerID"].partition(".")[0]
            units, price = int(row["Quantity"]), thousandths(row["UnitPrice"])
            rule = rule_against(number, stock, customer, units, price)
            if rule:
                left_out[rule] += 1
                continue
            if price % 10:
                raise ValueError(f"{number}: goods at a fraction of a penny")
            when = row["InvoiceDate"]  # sorts as text
            document = found[customer].setdefault(number, [when, []])
            document[0] = min(document[0], when)
            document[1].append((stock, abs(units), price // 10))
    return found, left_out


class Invoice:
    def __init__(self, when, number, lines):
        self.when, self.number = when, number
        self.left = collections.Counter()  # units of each item that no note has taken
        for stock, units, _ in lines:
            self.left[stock] += units
        self.amount = sum(units * pence for _, units, pence in lines)
        self.taken = 0  # pence, by notes
        self.returned = 0  # pence, as the consumer accepted it

    @property
    def net(self):
        return self.amount - self.returned

    @property
    def counts(self):
        return self.returned < self.amount

    @property
    def day(self):
        return datetime.date.fromisoformat(self.when[:10])


def match(note, invoices):
    """The note's returns: {invoice or None: pence}, invoices being in their order."""
    returns = {}
    for stock, units, pence in note.lines:
        for invoice in reversed(invoices):
            n = min(units, invoice.left[stock], (invoice.amount - invoice.taken) // pence)
            if n:
                units -= n
                invoice.left[stock] -= n
                invoice.taken += n * pence
                returns[invoice] = returns.get(invoice, 0) + n * pence
        if units:
            returns[None] = returns.get(None, 0) + units * pence
    return returns


class Memory:
    """What the consumer still knows of one customer: orders, IDs, waiting returns."""

    def __init__(self):
        self.orders, self.ids, self.waiting, self.refused = [], [], [], {}
        self.accepted = 0

    def forget_before(self, when, inclusive):
        """Drops what is older than when, or not newer."""
        def old(t):
            return t < when or (inclusive and t == when)
        self.orders = [o for o in self.orders if not old(o.when)]
        self.ids = [t for t in self.ids if not old(t)]
        self.refuse(lambda w: old(w[0]))

    def refuse(self, which):
        for when, name, pence in [w for w in self.waiting if which(w)]:
            self.refused[name] = pence
        self.waiting = [w for w in self.waiting if not which(w)]

    def time_passes(self, when):
        now = datetime.datetime.fromisoformat(when)
        over = [w for w in self.waiting if datetime.datetime.fromisoformat(w[0]) + GRACE < now]
        for w in over:
            self.ids.remove(w[0])  # a refused return leaves no trace
            self.ids.remove(w[0])
        self.refuse(lambda w: w in over)

    def settle(self):
        while len(self.ids) + len(self.orders) > MAX_IDS:
            self.forget_before(min(self.ids + [o.when for o in self.orders]), True)
        while len(self.orders) > MAX_ORDERS:
            self.forget_before(min(o.when for o in self.orders), True)

    def buy(self, invoice):
        self.time_passes(invoice.when)
        self.orders.append(invoice)  # an order is an ID, too
        self.settle()

    def give_back(self, when, name, invoice, pence):
        self.time_passes(when)
        if invoice in self.orders:
            invoice.returned += pence
            self.accepted += 1
        else:
            self.waiting.append((when, name, pence))
        self.ids += [when, when]  # the event's and the return's
        self.settle()


def read(customer_documents):
    """Every invoice of one customer, and what the consumer made of the notes."""
    events = sorted((when, number.startswith("C"), number, lines) for number, (when, lines) in customer_documents.items())
    invoices, memory = [], Memory()
    for when, credit, number, lines in events:
        if not credit:
            invoices.append(Invoice(when, number, lines))
            memory.buy(invoices[-1])
            continue
        for invoice, pence in match(Note(when, number, lines), invoices).items():
            order = invoice.number if invoice else number
            memory.give_back(when, f"uci:{number}:{order}", invoice, pence)
    memory.refuse(lambda w: True)  # all waiting ends some day
    return invoices, memory


def main(path, as_of):
    today = datetime.date.fromisoformat(as_of)
    found, left_out = documents(path)
    for rule, n in sorted(left_out.items()):
        print(f"left out: {n} rows {rule}", file=sys.stderr)
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("customer", "orders", "returns", "net", "r_days", "f_orders", "m_net", "r_score", "f_score", "m_score", "refused"))
    for customer in sorted(found):
        invoices, memory = read(found[customer])
        active = [i for i in invoices if i.counts]
        window = [i for i in active if 0 <= (today - i.day).days < WINDOW_DAYS]
        net, f, m = sum(i.net for i in active), len(window), sum(i.net for i in window)
        if active:
            r = (today - max(i.day for i in active)).days
            scores = (5 - sum(r > cut for cut in RECENCY), 1 + sum(f > cut for cut in FREQUENCY),
                      1 + sum(m >= cut * TYPICAL_ORDER for cut in MONEY))
        else:
            r, scores = "", (1, 1, 1)
        refused = " ".join(f"{name}={pence}" for name, pence in sorted(memory.refused.items()))
        out.writerow((customer, len(active), memory.accepted, net, r, f, m, *scores, refused))


if __name__ == "__main__":
    main(*sys.argv[1:])
