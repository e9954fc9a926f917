"""Golden values of the functions of gamma.go, at 40 digits. Needs mpmath.

Writes gamma.csv beside itself: function, arguments, value. The arguments are
float64 values in hexadecimal, so that nothing is lost in reading them.

  python3 gamma.py
"""
import os, random
from mpmath import mp, mpf, loggamma, log, exp, nstr

mp.dps = 60
random.seed(7)
rows = []


def row(name, f, *args):
    rows.append(",".join([name] + [float(a).hex() for a in args] + [""] * (4 - len(args)) + [nstr(f(*(mpf(float(a)) for a in args)), 20)]))


def wide(lo, hi):
    return float(exp(random.uniform(float(log(lo)), float(log(hi)))))


def logbeta(a, b):
    return loggamma(a) + loggamma(b) - loggamma(a + b)


for _ in range(150):
    row("Lgamma", loggamma, wide(1e-10, 1e12))
    row("Lgamma", loggamma, random.uniform(0.05, 9))
    d = wide(1e-15, 0.3) * random.choice((-1, 1))
    row("Lgamma", loggamma, 1 + d)
    row("Lgamma", loggamma, 2 + d)
for _ in range(120):
    row("LogRising", lambda x, n: loggamma(x + n) - loggamma(x), wide(8, 1e9), wide(1e-3, 1e6))
    row("LogRising", lambda x, n: loggamma(x + n) - loggamma(x), wide(1e-6, 8), wide(0.5, 1e6))
    row("LogBeta", logbeta, wide(1e-3, 1e9), wide(1e-3, 1e9))
    row("LogGammaPeak", lambda x: x * log(x) - x - loggamma(x), wide(8, 1e9))
    n, r = wide(0.5, 1e7), wide(1e-2, 1e7)
    x = float(min(0.999, max(1e-3, n / (n + r) * random.uniform(0.8, 1.2))))
    row("LogBetaTerm", lambda a, b, x, y: a * log(x) + b * log(y) - logbeta(a, b), n, r, x, 1 - x)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "gamma.csv"), "w") as f:
    f.write("\n".join(rows) + "\n")
