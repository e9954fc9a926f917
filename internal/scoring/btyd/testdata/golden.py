"""Golden values of the models, by published forms at high precision.

Writes golden.ndjson beside itself: lines as `tierctl clv` reads them, with the
value that must come out. Needs mpmath. Forms are others than the program's
where there is a choice: hypergeometric functions as published instead of their
transformations, integrals over the hidden parameters instead of sums.

  python3 golden.py
"""
import json, os
from mpmath import mp, mpf, log, exp, gamma, loggamma, hyp2f1, hyperu, beta, binomial, quad, inf, rf, fac, betainc, nstr

mp.dps = 60
EPS = mpf(10) ** -25  # a = 1, s = 1, gamma = 1 are computed beside it

lines = []


def out(model, params, inputs, output, value):
    lines.append(json.dumps({"id": len(lines) + 1, "model": model, "params": params, "inputs": inputs, "output": output})[:-1]
                 + ', "value": ' + nstr(value, 18, min_fixed=-4, max_fixed=12) + "}")


def lnbeta(a, b):
    return loggamma(a) + loggamma(b) - loggamma(a + b)


# --- BG/NBD and MBG/NBD (Fader et al. 2005; Batislam et al. 2007; Hardie 021, 027, 039) ---
def bg(mbg, p, x, tx, T):
    r, al, a, b = p
    m = 1 if mbg else 0
    lnA = lnbeta(a, b + x + m) - lnbeta(a, b) + loggamma(r + x) - loggamma(r) + r * log(al) - (r + x) * log(al + T)
    L = exp(lnA)
    dead = mpf(0)
    if mbg or x > 0:
        dead = exp(lnbeta(a + 1, b + x - 1 + m) - lnbeta(a, b) + loggamma(r + x) - loggamma(r) + r * log(al) - (r + x) * log(al + tx))
    return lnA, L, dead


def bg_ll(mbg, p, x, tx, T):
    _, L, dead = bg(mbg, p, x, tx, T)
    return log(L + dead)


def bg_alive(mbg, p, x, tx, T):
    _, L, dead = bg(mbg, p, x, tx, T)
    return L / (L + dead)


def bg_expected_alive(mbg, p, x, T, t):
    r, al, a, b = p
    if a == 1:
        a = 1 + EPS
    z = t / (al + T + t)
    if x > 5000:  # by the moments of pi
        R, tau, B, n, total = r + x, t / (al + T), b + x + (1 if mbg else 0), 1, mpf(0)
        term = R * tau
        while abs(term) > mpf(10) ** -45 * abs(total) or total == 0:
            total += term
            term *= -(R + n) / (n + 1) * tau * (a + n - 1) / (a + B + n - 1)
            n += 1
        return total
    if z > .985 or b > 1000 and z > .2:  # where 2F1 converges slowly: over pi = w^(1/a), which is beta (a, B) distributed
        B, R, tau = b + x + (1 if mbg else 0), r + x, t / (al + T)
        def f(w):
            pi = w ** (1 / a)
            return (1 - pi) ** (B - 1) * ((1 - (1 + pi * tau) ** -R) / pi if pi > mpf(10) ** -40 else R * tau)
        # Where pi is of the size of a/B and of 1/(R tau), and around.
        with mp.workdps(40):
            marks = sorted({min(mpf(1), s * 10 ** (mpf(i) / 2)) for s in (a / (a + B), 1 / (1 + R * tau)) for i in range(-12, 7)})
            return quad(f, [0] + [m ** a for m in marks] + [1] * (marks[-1] < 1)) / a / beta(a, B)
    if mbg:
        c, f = a + b + x, hyp2f1(r + x, b + x + 1, a + b + x, z)
    else:
        c, f = a + b + x - 1, hyp2f1(r + x, b + x, a + b + x - 1, z)
    return c / (a - 1) * (1 - (1 - z) ** (r + x) * f)


def bg_pmf(mbg, p, n, t):
    r, al, a, b = p
    m = 1 if mbg else 0
    q = t / (al + t)
    nb = lambda j: rf(r, j) / fac(j) * (1 - q) ** r * q ** j
    v = beta(a, b + n + m) / beta(a, b) * nb(n)
    if n + m > 0:
        v += beta(a + 1, b + n + m - 1) / beta(a, b) * (1 - sum(nb(j) for j in range(n)))
    return v


def bg_dert(mbg, p, x, tx, T, d):
    # over the rate: the m-th purchase from now is discounted by (lambda/(lambda+d))^m
    r, al, a, b = p
    B = b + x + (1 if mbg else 0)
    R = r + x
    f = lambda l: exp(R * log(al + T) - loggamma(R) + (R - 1) * log(l) - l * (al + T)) * l / (l + d) * hyp2f1(1, B, a + B, l / (l + d))
    m = R / (al + T)
    return bg_alive(mbg, p, x, tx, T) * quad(f, [0, m / 64, m / 8, m / 2, m, 2 * m, 4 * m, 16 * m, 64 * m, inf])


# --- Pareto/NBD (Hardie 009) ---
def pareto(p, x, tx, T):
    r, al, s, be = p
    m, d, w = max(al, be), abs(al - be), r + s + x
    p2 = r + x if al < be else s + 1
    lead = (al + T) ** -(r + x) * (be + T) ** -s
    if x > 1000:  # by definition: over the time of leaving
        f = lambda u: s * exp(-(r + x) * log(al + u) - (s + 1) * log(be + u))
        step = (al + tx) / x
        return lead, quad(f, sorted({tx, T} | {tx + i * step for i in (1, 3, 6, 10, 20, 50, 100) if tx + i * step < T}))
    A0 = hyp2f1(w, p2, w + 1, d / (m + tx), maxterms=10 ** 7) * (m + tx) ** -w - hyp2f1(w, p2, w + 1, d / (m + T), maxterms=10 ** 7) * (m + T) ** -w
    return lead, s / w * A0


def pareto_ll(p, x, tx, T):
    r, al, s, be = p
    lead, dead = pareto(p, x, tx, T)
    return loggamma(r + x) - loggamma(r) + r * log(al) + s * log(be) + log(lead + dead)


def pareto_alive(p, x, tx, T):
    lead, dead = pareto(p, x, tx, T)
    return lead / (lead + dead)


def pareto_cet(p, x, tx, T, t):
    r, al, s, be = p
    if s == 1:
        s = 1 + EPS
    return (r + x) * (be + T) / ((al + T) * (s - 1)) * (1 - ((be + T) / (be + T + t)) ** (s - 1)) * pareto_alive(p, x, tx, T)


def pareto_dert(p, x, tx, T, d):
    r, al, s, be = p
    L = exp(pareto_ll(p, x, tx, T))
    return al ** r * be ** s * d ** (s - 1) * gamma(r + x + 1) * hyperu(s, s, d * (be + T)) / (gamma(r) * (al + T) ** (r + x + 1) * L)


def pareto_pmf(p, n, t):
    r, al, s, be = p
    nb = lambda u: rf(r, n) / fac(n) * (al / (al + u)) ** r * (u / (al + u)) ** n
    f = lambda u: nb(u) * s * be ** s / (be + u) ** (s + 1)
    return nb(t) * (be / (be + t)) ** s + quad(f, [0, t / 1000, t / 100, t / 10, t / 2, t])


# --- (M)BG/CNBD-k: the likelihood and its consequences by integrating over lambda; pi through beta functions ---
def erlang(mbg, k, p, x, tx, T, g, points=None):
    """Integral over lambda of its density, the likelihood of the gaps without their own factor, and g(lambda, survival)."""
    r, al, a, b = p
    def f(v):  # v = lambda^r takes the singularity of the density at 0 away
        l = v ** (1 / r)
        pure = exp(r * log(al) - loggamma(r) + k * x * log(l) - l * (al + tx)) / r
        if pure < mpf(10) ** -45:
            return mpf(0)
        u = l * (T - tx)
        return pure * g(l, exp(-u) * sum(u ** j / fac(j) for j in range(k)))
    m = (r + k * x + 1) / (al + tx)
    return quad(f, [0] + [(m * i) ** r for i in (mpf(1) / 1024, mpf(1) / 64, mpf(1) / 16, mpf(1) / 4, 1, 2, 4, 8, 32, 200)])


def erlang_parts(mbg, k, p, x, tx, T):
    r, al, a, b = p
    m = 1 if mbg else 0
    stay = beta(a, b + x + m) / beta(a, b)
    left = beta(a + 1, b + x + m - 1) / beta(a, b) if x + m > 0 else mpf(0)
    return stay * erlang(mbg, k, p, x, tx, T, lambda l, s: s), left * erlang(mbg, k, p, x, tx, T, lambda l, s: 1)


def erlang_ll(mbg, k, p, x, tx, T, litt):
    A, D = erlang_parts(mbg, k, p, x, tx, T)
    return log(A + D) + (k - 1) * litt - x * loggamma(k)


def erlang_alive(mbg, k, p, x, tx, T):
    A, D = erlang_parts(mbg, k, p, x, tx, T)
    return A / (A + D)


def erlang_cet(mbg, k, p, x, tx, T, t):
    # Over lambda and over pi: E[X] = sum over m of (1-pi)^(m-1) P(at least m), where the times are Erlang and the
    # first purchase comes after what is left of its gap.
    r, al, a, b = p
    B = b + x + (1 if mbg else 0)
    def g(l, s):
        u, v = l * (T - tx), l * t
        total = mpf(0)
        for j in range(k):
            wj = exp(-u) * u ** j / fac(j)
            if wj == 0:
                continue
            m, weight, cdf, term, n = 1, mpf(1), mpf(0), exp(-v), 0
            while True:
                while n < m * k - j:
                    cdf += term
                    term *= v / (n + 1)
                    n += 1
                part = weight * (1 - cdf)
                total += wj * part
                if 1 - cdf < mpf(10) ** -22:
                    break
                weight *= (B + m - 1) / (a + B + m - 1)
                m += 1
        return total
    A, D = erlang_parts(mbg, k, p, x, tx, T)
    stay = beta(a, b + x + (1 if mbg else 0)) / beta(a, b)
    return stay * erlang(mbg, k, p, x, tx, T, g) / (A + D)


def erlang_pmf(mbg, k, p, n, t):
    r, al, a, b = p
    m = 1 if mbg else 0
    def count(l, lo, hi):
        u = l * t
        return exp(-u) * sum(u ** i / fac(i) for i in range(lo, hi))
    exactly = erlang(mbg, k, p, 0, 0, 0, lambda l, s: count(l, n * k, n * k + k))
    least = 1 - erlang(mbg, k, p, 0, 0, 0, lambda l, s: count(l, 0, n * k)) if n else mpf(1)
    v = beta(a, b + n + m) / beta(a, b) * exactly
    if n + m:
        v += beta(a + 1, b + n + m - 1) / beta(a, b) * least
    return v


# --- BG/BB (Fader, Hardie, Shang 2010) ---
def bb_l(p, x, tx, n):
    al, be, ga, de = p
    v = beta(al + x, be + n - x) / beta(al, be) * beta(ga, de + n) / beta(ga, de)
    for i in range(n - tx):
        v += beta(al + x, be + tx - x + i) / beta(al, be) * beta(ga + 1, de + tx + i) / beta(ga, de)
    return v


def bb_alive(p, x, tx, n):
    al, be, ga, de = p
    return beta(al + x, be + n - x) / beta(al, be) * beta(ga, de + n + 1) / beta(ga, de) / bb_l(p, x, tx, n)


def bb_cet(p, x, tx, n, m):
    al, be, ga, de = p
    if ga == 1:
        ga = 1 + EPS
    return (beta(al + x + 1, be + n - x) / beta(al, be) * de / (ga - 1) * gamma(ga + de) / gamma(1 + de)
            * (gamma(1 + de + n) / gamma(ga + de + n) - gamma(1 + de + n + m) / gamma(ga + de + n + m)) / bb_l((al, be, ga, de), x, tx, n))


def bb_pmf(p, x, n):
    al, be, ga, de = p
    v = binomial(n, x) * beta(al + x, be + n - x) / beta(al, be) * beta(ga, de + n) / beta(ga, de)
    for i in range(x, n):
        v += binomial(i, x) * beta(al + x, be + i - x) / beta(al, be) * beta(ga + 1, de + i) / beta(ga, de)
    return v


def bb_dert(p, x, tx, n, rate):
    al, be, ga, de = p
    d = exp(rate) - 1
    return (beta(al + x + 1, be + n - x) / beta(al, be) * beta(ga, de + n + 1) / (beta(ga, de) * (1 + d))
            * hyp2f1(1, de + n + 1, ga + de + n + 1, 1 / (1 + d)) / bb_l(p, x, tx, n))


M = lambda *v: tuple(mpf(repr(float(i))) for i in v)

# BG/NBD and MBG/NBD
PARAMS = [(.243, 4.414, .793, 2.426), (.525, 43.28, .891, 1.614), (.25, 4, 1, 2.5), (5, 20, 1.5, .4), (.7226, 9.4245, .0029, 895168), (12, 30, .3, .2)]
HIST = [(0, 0, 0), (0, 0, 38.86), (2, 30.43, 38.86), (7, 29.43, 39), (26, 34, 39), (200, 39.9, 40), (1000, 10, 100), (5000, 1000, 1000), (100000, 5000, 5000.5), (100000, 900, 1000)]
for mbg in (False, True):
    name = ("M" if mbg else "") + "BG/NBD"
    for P in PARAMS:
        p, params = M(*P), dict(zip(("r", "alpha", "a", "b"), P))
        for H in HIST:
            x, h = H[0], M(*H)
            inp = dict(zip(("x", "t_x", "T"), H))
            ll = bg_ll(mbg, p, x, h[1], h[2])
            out(name, params, inp, "log_likelihood", ll)
            alive = bg_alive(mbg, p, x, h[1], h[2])
            if alive > mpf(10) ** -290:
                out(name, params, inp, "p_alive", alive)
                for t in ((52,) if x != 2 else (.5, 52, 5000)):
                    if x > 1000 and P[0] > 1:
                        continue
                    mp.dps = 500 if x in (1000, 5000) else 60
                    out(name, params, dict(inp, t=t), "conditional_expected_purchases", alive * bg_expected_alive(mbg, p, x, h[2], mpf(repr(float(t)))))
                    mp.dps = 60
            out(name, params, dict(inp, t=13), "p_no_purchase", exp(bg_ll(mbg, p, x, h[1], h[2] + 13) - ll))
        for t in (1, 39, 36 * P[1], 1e6):
            out(name, params, {"t": t}, "expected_purchases_new_customer",
                bg_expected_alive(mbg, p, 0, mpf(0), mpf(repr(float(t)))) * bg_alive(mbg, p, 0, mpf(0), mpf(0)))
        for n, t in ((0, 39), (1, 39), (5, 39), (60, 200), (3, .25)):
            out(name, params, {"n": n, "t": t}, "pmf", bg_pmf(mbg, p, n, mpf(repr(float(t)))))
    mp.dps = 30
    for P, H, d in ((PARAMS[0], (2, 30.43, 38.86), .002), (PARAMS[0], (0, 0, 38.86), .05), (PARAMS[1], (26, 34, 39), .0003), (PARAMS[3], (7, 29.43, 39), 1)):
        out(name, dict(zip(("r", "alpha", "a", "b"), P)), dict(zip(("x", "t_x", "T"), H), continuous_discount_per_unit=d), "dert", bg_dert(mbg, M(*P), H[0], *M(*H[1:]), mpf(repr(d))))
    for P, x, tx in ((PARAMS[0], 7, 29.43), (PARAMS[1], 3, 100)):
        for q in (.9, .5, .2):
            r, al, a, b = M(*P)
            Q, t_x = mpf(repr(q)), mpf(repr(tx))
            T = (al + t_x) * ((1 - Q) / Q * (b + x - (0 if mbg else 1)) / a) ** (1 / (r + x)) - al
            out(name, dict(zip(("r", "alpha", "a", "b"), P)), {"x": x, "t_x": tx, "p_alive_threshold": q}, "T_at_crossing", max(T, t_x))
    mp.dps = 60

# Pareto/NBD
PARAMS = [(.553, 10.578, .606, 11.669), (.6, 11, 1, 11), (.6, 12, 1, 9), (1.5, 2, .3, 300), (1.5, 300, 2.5, 2)]
for P in PARAMS:
    p, params = M(*P), dict(zip(("r", "alpha", "s", "beta"), P))
    for H in [(0, 0, 0), (0, 0, 38.86), (2, 30.43, 38.86), (7, 39, 39), (221, 103.43, 103.57), (1000, 10, 100), (100000, 5000, 5000.5), (100000, 900, 1000)]:
        x, h = H[0], M(*H)
        inp = dict(zip(("x", "t_x", "T"), H))
        ll = pareto_ll(p, x, h[1], h[2])
        out("Pareto/NBD", params, inp, "log_likelihood", ll)
        alive = pareto_alive(p, x, h[1], h[2])
        if alive > mpf(10) ** -290:
            out("Pareto/NBD", params, inp, "p_alive", alive)
            out("Pareto/NBD", params, dict(inp, t=52), "conditional_expected_purchases", pareto_cet(p, x, h[1], h[2], mpf(52)))
            if x <= 1000:
                for d in (.0018, .1, 3):
                    out("Pareto/NBD", params, dict(inp, continuous_discount_per_unit=d), "dert", pareto_dert(p, x, h[1], h[2], mpf(repr(float(d)))))
        out("Pareto/NBD", params, dict(inp, t=13), "p_no_purchase", exp(pareto_ll(p, x, h[1], h[2] + 13) - ll))
    for t in (1, 39, 36 * P[1], 1e6):
        out("Pareto/NBD", params, {"t": t}, "expected_purchases_new_customer", pareto_cet(p, 0, mpf(0), mpf(0), mpf(repr(float(t)))))
    mp.dps = 30
    for n, t in ((0, 39), (1, 39), (5, 39), (60, 200), (3, .25)):
        out("Pareto/NBD", params, {"n": n, "t": t}, "pmf", pareto_pmf(p, n, mpf(repr(float(t)))))
    mp.dps = 60

# (M)BG/CNBD-k
mp.dps = 25
for mbg in (False, True):
    name = ("M" if mbg else "") + "BG/CNBD"
    for k, P in ((1, (.25, 4, .8, 2.5)), (2, (.6, 8, .8, 2.5)), (3, (1.2, 3, 1, 1.6)), (8, (.9, 5, 2.5, .7))):
        p, params = M(*P), dict(zip(("k", "r", "alpha", "a", "b"), (k, *P)))
        for H, litt in (((0, 0, 10), 0), ((2, 20, 30), 4.1), ((9, 30, 31), 9.5)):
            x, h = H[0], M(*H)
            inp = dict(zip(("x", "t_x", "T"), H))
            out(name, params, dict(inp, litt=litt), "log_likelihood", erlang_ll(mbg, k, p, x, h[1], h[2], mpf(repr(float(litt)))))
            out(name, params, inp, "p_alive", erlang_alive(mbg, k, p, x, h[1], h[2]))
            out(name, params, dict(inp, t=7), "p_no_purchase", exp(erlang_ll(mbg, k, p, x, h[1], h[2] + 7, mpf(0)) - erlang_ll(mbg, k, p, x, h[1], h[2], mpf(0))))
            if k < 8 and x < 9:
                out(name, params, dict(inp, t=12), "conditional_expected_purchases", erlang_cet(mbg, k, p, x, h[1], h[2], mpf(12)))
        if k > 1:
            out(name, params, {"t": 15}, "expected_purchases_new_customer", erlang_cet(mbg, k, p, 0, mpf(0), mpf(0), mpf(15)))
        for n in (0, 1, 4):
            out(name, params, {"n": n, "t": 20}, "pmf", erlang_pmf(mbg, k, p, n, mpf(20)))
mp.dps = 60

# NBD
P = (.7, 12.5)
r, al = M(*P)
for H in ((0, 0, 0), (3, 20, 39), (100000, 900, 1000)):
    x, T = H[0], mpf(repr(float(H[2])))
    inp = dict(zip(("x", "t_x", "T"), H))
    params = {"r": P[0], "alpha": P[1]}
    out("NBD", params, inp, "log_likelihood", loggamma(r + x) - loggamma(r) + r * log(al) - (r + x) * log(al + T))
    out("NBD", params, inp, "p_alive", mpf(1))
    out("NBD", params, dict(inp, t=10), "conditional_expected_purchases", (r + x) / (al + T) * 10)
    out("NBD", params, dict(inp, t=10), "p_no_purchase", ((al + T) / (al + T + 10)) ** (r + x))
    out("NBD", params, dict(inp, continuous_discount_per_unit=.01), "dert", (r + x) / (al + T) * 100)
for n, t in ((0, 30), (4, 30), (200, 30)):
    out("NBD", {"r": P[0], "alpha": P[1]}, {"n": n, "t": t}, "pmf", rf(r, n) / fac(n) * (al / (al + t)) ** r * (t / (al + t)) ** n)

# BG/BB
for P in ((1.204, .750, .657, 2.783), (.5, 3, 1, 2)):
    p, params = M(*P), dict(zip(("alpha", "beta", "gamma", "delta"), P))
    for x, tx, n in ((0, 0, 6), (1, 6, 6), (3, 4, 6), (6, 6, 6), (40, 90, 120)):
        inp = {"x": x, "t_x": tx, "n": n}
        out("BG/BB", params, inp, "log_likelihood", log(bb_l(p, x, tx, n)))
        out("BG/BB", params, inp, "p_alive", bb_alive(p, x, tx, n))
        out("BG/BB", params, dict(inp, n_future=5), "conditional_expected_purchases", bb_cet(p, x, tx, n, 5))
        out("BG/BB", params, dict(inp, n_future=500), "conditional_expected_purchases", bb_cet(p, x, tx, n, 500))
        out("BG/BB", params, dict(inp, n_future=4), "p_no_purchase", bb_l(p, x, tx, n + 4) / bb_l(p, x, tx, n))
        for d in (.1, .001):
            out("BG/BB", params, dict(inp, continuous_discount_per_unit=d), "dert", bb_dert(p, x, tx, n, mpf(repr(d))))
    out("BG/BB", params, {"n_future": 6}, "expected_purchases_new_customer", bb_cet(p, 0, 0, 0, 6))
    for n in (0, 2, 6):
        out("BG/BB", params, {"n": n, "t": 6}, "pmf", bb_pmf(p, n, 6))

# Gamma-Gamma
for P in ((6.25, 3.74, 15.44), (2.395, 3.3018, 396.43), (.5, .9, 1e4)):
    p, q, v = M(*P)
    params = dict(zip("pqv", P))
    for x, m in ((0, 0), (1, 30), (7, 73.74), (100000, 12.5)):
        z = mpf(repr(float(m)))
        if x:
            out("Gamma-Gamma", params, {"x": x, "mean_value": m}, "log_likelihood", loggamma(p * x + q) - loggamma(p * x) - loggamma(q) + q * log(v) + (p * x - 1) * log(z) + p * x * log(x) - (p * x + q) * log(x * z + v))
        if x or q > 1:
            out("Gamma-Gamma", params, {"x": x, "mean_value": m}, "conditional_mean_value", p * (v + x * z) / (p * x + q - 1))

# Pairs
for mbg in (False, True):
    P, G = (.243, 4.414, .793, 2.426), (6.25, 3.74, 15.44)
    p, (gp, gq, gv) = M(*P), M(*G)
    for key in (("mbgnbd", "bgnbd") if mbg else ("bgnbd",)):
        for H, m in (((2, 30.43, 38.86), 22.35), ((0, 0, 38.86), 0)):
            x, h = H[0], M(*H)
            z = mpf(repr(float(m)))
            value = gp * (gv + x * z) / (gp * x + gq - 1)
            u, d = mpf("4.345"), mpf("0.01")
            alive = bg_alive(mbg, p, x, h[1], h[2])
            e = [alive * bg_expected_alive(mbg, p, x, h[2], i * u) if i else mpf(0) for i in range(13)]
            clv = value * sum((e[i] - e[i - 1]) / (1 + d) ** i for i in range(1, 13))
            name = ("M" if mbg else "") + "BG/NBD + Gamma-Gamma"
            params = {key: dict(zip(("r", "alpha", "a", "b"), P)), "gammagamma": dict(zip("pqv", G))}
            inp = dict(zip(("x", "t_x", "T"), H), mean_value=m)
            out(name, params, dict(inp, months=12, monthly_discount=.01, units_per_month=4.345), "discounted_clv", clv)
            out(name, params, inp, "conditional_mean_value", value)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.ndjson"), "w") as f:
    f.write("\n".join(lines) + "\n")
print(len(lines), "lines")
