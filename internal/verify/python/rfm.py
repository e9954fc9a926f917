#!/usr/bin/env python3
"""Recency, frequency and money of every customer of the CDNOW log.

Usage: rfm.py CDNOW_master.txt [AS_OF]

An independent reading of the written rules, in the standard library only, to
be compared with the program's export. AS_OF is a UTC midnight, by default
1998-07-01. Prints CSV, one row per customer in the order of their IDs:

  customer   ID as in the file
  orders     rows, of a zero amount too (zero_orders: count); lifetime
  net        their money in cents; lifetime
  first_day, last_day   dates of the first and the last row
  r_days     days from last_day to the date of AS_OF
  f_orders   rows of the days d with 0 <= AS_OF - d < 365
  m_net      their money in cents
  r_score, f_score, m_score   1 to 5, by the default cut points

The log has no returns, so every order counts.
"""

import csv
import datetime
import sys

WINDOW_DAYS = 365
TYPICAL_ORDER = 3500  # cents, as given to `tierctl model init`

RECENCY = (30, 60, 90, 180)  # up to the first scores 5, beyond the last 1
FREQUENCY = (1, 2, 4, 8)  # up to the first scores 1, beyond the last 5
MONEY = (1, 2, 4, 8)  # typical orders; below the first scores 1, from the last on 5


def cents(text):
    """Dollars with two decimals as an integer, without a float between."""
    dollars, dot, rest = text.partition(".")
    if dot != "." or len(rest) != 2 or not (dollars + rest).isdigit():
        raise ValueError(f"amount {text!r}: want dollars with two decimals")
    return int(dollars) * 100 + int(rest)


def rows(path):
    """Yield (customer, date, cents) in the order of the file."""
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            cells = line.split()
            if not cells or (number == 1 and cells[0] == "customer_id"):
                continue
            customer, day, _, dollars = cells
            yield customer, datetime.datetime.strptime(day, "%Y%m%d").date(), cents(dollars)


def recency_score(days):
    return 5 - sum(days > cut for cut in RECENCY)


def frequency_score(orders):
    return 1 + sum(orders > cut for cut in FREQUENCY)


def money_score(net):
    return 1 + sum(net >= cut * TYPICAL_ORDER for cut in MONEY)


def main(path, as_of="1998-07-01"):
    today = datetime.date.fromisoformat(as_of)
    customers = {}
    for customer, day, amount in rows(path):
        customers.setdefault(customer, []).append((day, amount))

    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("customer", "orders", "net", "first_day", "last_day",
                  "r_days", "f_orders", "m_net", "r_score", "f_score", "m_score"))
    for customer in sorted(customers):
        bought = customers[customer]
        days = [day for day, _ in bought]
        if max(days) > today:
            raise ValueError(f"customer {customer} bought after {today}")
        recent = [amount for day, amount in bought if 0 <= (today - day).days < WINDOW_DAYS]
        r, f, m = (today - max(days)).days, len(recent), sum(recent)
        out.writerow((customer, len(bought), sum(amount for _, amount in bought), min(days), max(days),
                      r, f, m, recency_score(r), frequency_score(f), money_score(m)))


if __name__ == "__main__":
    main(*sys.argv[1:])
