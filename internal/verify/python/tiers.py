#!/usr/bin/env python3
"""Every tier change of the CDNOW log under the default model.

Usage: tiers.py CDNOW_master.txt
       tiers.py --check

An independent reading of the written rules, in the standard library only, to
be compared with the messages in the topic of tier changes. A row of the file
is a purchase at 12:00 UTC of its date, rows of 0.00 too (zero_orders: count);
each is one evaluation of its customer, at its own time, rows of one day in
the order of the file. Prints CSV, one row per change:

  customer, sequence, tier, effective_at   the change
  score   the measure, 0 to 100, as it decided

and on standard error the number of rows and of changes, and every evaluation
whose tier would be another if the models' estimates differed by 1e-9 of
themselves: there, two correct programs in floating point need not agree.

--check compares the expected purchases with a second, unrelated formula.
"""

import csv
import datetime
import functools
import math
import sys

# The default model of `tierctl model init --currency USD --typical-order 35.00`.
TYPICAL_ORDER = 3500  # cents
MARGIN_PERCENT = 30
R, ALPHA, A, B = 0.525, 43.28, 0.891, 1.614  # MBG/NBD, days
P, Q = 6.25, 3.74  # Gamma-Gamma
V = TYPICAL_ORDER * (Q - 1) / P  # so that the population mean is a typical order
HORIZON_DAYS, PERIODS, DISCOUNT = 365, 4, 0.10
SATISFACTION = 80  # nobody answered a survey or complained
FULL_MARGINS = 20
TIERS = (("bronze", None, None), ("silver", 40, 36), ("gold", 60, 56), ("platinum", 80, 76))


def half_even(numerator, denominator):
    """numerator/denominator as the nearest integer, exact; a tie goes to even."""
    q, rest = divmod(numerator, denominator)
    return q + (2 * rest > denominator or (2 * rest == denominator and q % 2 == 1))


def margin(net):
    """Margin in cents of orders of so much money that state none."""
    return half_even(net * MARGIN_PERCENT, 100)


PURCHASE = b"\x01"  # parts the IDs of orders from others before they are hashed
WORD = (1 << 64) - 1
NUDGE = 1e-9  # far more than the error of either program, far less than 1e-6 points
TYPICAL_MARGIN = margin(TYPICAL_ORDER)


def xxh64(data):
    """XXH64 of fewer than 32 bytes, seed 0 (its published specification)."""
    p1, p2, p3, p4, p5 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                          0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)

    def turn(v, n):
        return (v << n | v >> 64 - n) & WORD

    h = p5 + len(data)
    while len(data) >= 8:
        lane, data = int.from_bytes(data[:8], "little"), data[8:]
        h = turn(h ^ turn(lane * p2 & WORD, 31) * p1 & WORD, 27) * p1 + p4 & WORD
    if len(data) >= 4:
        lane, data = int.from_bytes(data[:4], "little"), data[4:]
        h = turn(h ^ lane * p1 & WORD, 23) * p2 + p3 & WORD
    for byte in data:
        h = turn(h ^ byte * p5 & WORD, 11) * p1 & WORD
    h = (h ^ h >> 33) * p2 & WORD
    h = (h ^ h >> 29) * p3 & WORD
    return h ^ h >> 32


def order_rank(line):
    """Orders of one instant stand in the order of the hashes of their IDs."""
    return xxh64(PURCHASE + f"cdnow:L{line:06}".encode())


def tanh_sinh(step, reach):
    """Nodes (p, 1-p, weight) of the double exponential rule on (0, 1).

    Both p and 1-p are kept, each precise where it is small. Takahasi and Mori
    1974: p = (1 + tanh(pi/2 sinh t))/2.
    """
    nodes = []
    for k in range(-reach, reach + 1):
        t = k * step
        u = math.pi / 2 * math.sinh(t)
        if abs(u) > 340:
            continue
        p, rest = 1 / (1 + math.exp(-2 * u)), 1 / (1 + math.exp(2 * u))
        nodes.append((p, rest, step * math.pi * math.cosh(t) * p * rest))
    return nodes


NODES = tanh_sinh(1 / 16, 96)


def alive(x, tx, age):
    """P(alive) of the MBG/NBD (Batislam, Denizel and Filiztekin 2007)."""
    return 1 / (1 + A / (B + x) * ((ALPHA + age) / (ALPHA + tx)) ** (R + x))


def expected(x, age, horizons):
    """Purchases within each horizon (days) after age, of a customer alive then.

    No closed form, but the model's own story, integrated. A living customer
    who survived 1 + x purchases has a drop-out probability p ~ Beta(a, b+x+1)
    and a rate l ~ Gamma(r+x, alpha+age). Given both, purchases within t are
    the integral of l exp(-l p s) over 0 < s < t, which is (1 - exp(-l p t))/p;
    its mean over l is (1 - (1 + p t/(alpha+age))**-(r+x))/p. What is left is
    one integral over p. The weights are normalised by their own integral, so
    no beta function is needed.
    """
    total, sums = 0.0, [0.0] * len(horizons)
    peak = (B + x) * math.log1p(-min(A / (A + B + x), 0.5))  # keeps the weights in range
    for p, rest, w in NODES:
        w *= math.exp((A - 1) * math.log(p) + (B + x) * math.log(rest) - peak)
        total += w
        for i, t in enumerate(horizons):
            sums[i] -= w * math.expm1(-(R + x) * math.log1p(p * t / (ALPHA + age))) / p
    return [s / total for s in sums]


@functools.cache
def discounted(x, tx, age):
    """P(alive), and purchases expected over the horizon, discounted.

    The horizon is cut into equal periods; those of each are discounted from
    its middle.
    """
    period = HORIZON_DAYS / PERIODS
    until = expected(x, age, [period * (i + 1) for i in range(PERIODS)])
    survival, sum_, before = alive(x, tx, age), 0.0, 0.0
    for i, now in enumerate(until):
        sum_ += (now - before) * (1 + DISCOUNT) ** (-(i + 0.5) * period / 365)
        before = now
    return survival, survival * sum_


def part(value, full):
    """A part of the contribution, 0 to 100, in 1/10,000."""
    return min(1_000_000, max(0, half_even(value * 1_000_000, full)))


class Customer:
    """What one customer's rows so far add up to."""

    def __init__(self):
        self.days = {}  # date: net money, in the order of dates
        self.first = self.later = 0  # money of the first order, and of the others
        self.first_rank = None
        self.tier = self.sequence = None

    def buy(self, day, rank, amount):
        # Rounding shows which order of the first day is taken for the first.
        if not self.days or (len(self.days) == 1 and day in self.days and rank < self.first_rank):
            self.first_rank = rank
            self.first, amount_later = amount, self.first
        else:
            amount_later = amount
        self.later += amount_later
        self.days[day] = self.days.get(day, 0) + amount

    def contribution(self, age_at_last, age, nudge=0.0):
        """The measure in 1/10,000: 40 % CLV, 30 % CAC, 20 % satisfaction, 10 % retention.

        Each part is rounded to 1/10,000, then their weighted sum is. nudge
        moves what the models estimate, by so much of itself.
        """
        values = [net for net in list(self.days.values())[1:] if net > 0]  # repeat days
        survival, purchases = discounted(len(self.days) - 1, age_at_last, age)
        # Mean value of a purchase: Fader, Hardie and Lee 2005, Hardie note 025 eq. 5.
        mean = P * (V + sum(values)) / (P * len(values) + Q - 1)
        predicted = round(purchases * mean * MARGIN_PERCENT / 100 * (1 + nudge))  # CLV6; a tie goes to even
        # clv.total + CAC: no cost and no referral is recorded, and nobody states
        # a category, so all orders after the first are one group.
        worth = margin(self.first) + margin(self.later) + predicted
        clv = part(worth, FULL_MARGINS * TYPICAL_MARGIN)
        cac = part(worth - TYPICAL_MARGIN, 4 * TYPICAL_MARGIN)  # the assumed CAC is a typical margin
        retention = round(survival * (1 + nudge) * 1_000_000)
        return half_even(40 * clv + 30 * cac + 20 * SATISFACTION * 10_000 + 10 * retention, 100)


def decide(tier, score):
    """The tier (an index) that follows, score in 1/10,000; None before the first."""
    reached = max(i for i, (_, enter, _) in enumerate(TIERS) if i == 0 or score >= enter * 10_000)
    if tier is None or reached > tier:
        return reached
    while tier > 0 and score < TIERS[tier][2] * 10_000:
        tier -= 1
    return tier


def purchases(path):
    """(date, customer, rank, cents) by date, those of one date in the order of the file."""
    found = []
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            cells = line.split()
            if not cells or (number == 1 and cells[0] == "customer_id"):
                continue
            dollars, _, rest = cells[3].partition(".")
            if len(rest) != 2:
                raise ValueError(f"line {number}: amount {cells[3]!r}")
            found.append((datetime.datetime.strptime(cells[1], "%Y%m%d").date(), cells[0], order_rank(number), int(dollars) * 100 + int(rest)))
    found.sort(key=lambda row: row[0])  # stable
    return found


def main(path):
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("customer", "sequence", "tier", "effective_at", "score"))
    customers, rows, changes = {}, 0, 0
    for day, name, rank, amount in purchases(path):
        rows += 1
        c = customers.setdefault(name, Customer())
        c.buy(day, rank, amount)
        age_at_last = (day - next(iter(c.days))).days
        age = age_at_last + 0.5  # noon: half the day has passed
        score = c.contribution(age_at_last, age)
        tier = decide(c.tier, score)
        if any(decide(c.tier, c.contribution(age_at_last, age, nudge)) != tier for nudge in (-NUDGE, NUDGE)):
            print(f"close: customer {name} on {day}: {score / 10_000:.4f}", file=sys.stderr)
        if tier == c.tier:
            continue
        c.tier, c.sequence = tier, (c.sequence or 0) + 1
        changes += 1
        out.writerow((name, c.sequence, TIERS[tier][0], f"{day}T12:00:00.000Z", f"{score // 10_000}.{score % 10_000:04}"))
    print(f"{rows} rows, {len(customers)} customers, {changes} changes", file=sys.stderr)


def check():
    """Expected purchases against the closed form with 2F1 (Batislam et al. 2007).

    The plain series is good enough where its terms stay moderate, which is
    what x up to 30 and a young age leave.
    """
    worst = 0.0
    for x, age in ((0, 0.5), (0, 300.5), (1, 0.5), (1, 80.5), (3, 400.5), (12, 200.5), (30, 540.5)):
        for t in (91.25, 182.5, 365.0):
            z, r = t / (ALPHA + age + t), R + x
            term, series = 1.0, 1.0
            for k in range(20_000):
                term *= (r + k) * (B + x + 1 + k) / ((A + B + x + k) * (k + 1)) * z
                series += term
                if abs(term) < 1e-17 * abs(series):
                    break
            closed = (A + B + x) / (A - 1) * (1 - (1 - z) ** r * series)
            worst = max(worst, abs(expected(x, age, [t])[0] / closed - 1))
    print(f"largest relative difference {worst:.1e}")
    if not worst < 1e-11:
        raise SystemExit("the two formulas of expected purchases differ")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        main(*sys.argv[1:])
