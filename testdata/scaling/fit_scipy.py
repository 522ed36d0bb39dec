"""The parametric fit of a scaling law with SciPy, to hold `cavy scaling fit` against.

    python fit_scipy.py POINTS.csv [highest losses to leave out]

Columns N, D, loss; or Epoch's `Model Size`, `Training FLOP`, `loss`. Prints one JSON object. Made with Python 3.11.7,
numpy 2.4.6 and SciPy 1.17.1. The objective is multiplied by 1e4, since L-BFGS-B stops at an absolute change of it.
"""

import csv
import itertools
import json
import sys

import numpy as np
import scipy
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

DELTA = 1e-3
SCALE = 1e4


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if "Model Size" in rows[0]:
        n = np.array([float(row["Model Size"]) for row in rows])
        d = np.array([float(row["Training FLOP"]) for row in rows]) / (6 * n)
    else:
        n, d = (np.array([float(row[name]) for row in rows]) for name in "ND")
    return n, d, np.array([float(row["loss"]) for row in rows])


def main():
    n, d, loss = read(sys.argv[1])
    highest = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if highest:
        keep = loss < np.sort(loss)[-highest]
        n, d, loss = n[keep], d[keep], loss[keep]
    ln_n, ln_d, ln_l = np.log(n), np.log(d), np.log(loss)

    def objective(theta):
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * ln_n, b - beta * ln_d, np.full_like(ln_n, e)])
        residual = logsumexp(terms, axis=0) - ln_l
        clipped = np.clip(residual, -DELTA, DELTA)
        value = np.sum(np.abs(clipped) * (np.abs(residual) - 0.5 * np.abs(clipped)))
        p = softmax(terms, axis=0) * clipped
        gradient = [p[0].sum(), p[1].sum(), p[2].sum(), -(p[0] * ln_n).sum(), -(p[1] * ln_d).sum()]
        return SCALE * value, SCALE * np.array(gradient)

    best = None
    options = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-10, "maxcor": 20}
    for start in itertools.product([0, 10, 20], [0, 10, 20], [-1, 0], [0, 0.5], [0, 0.5]):
        found = minimize(objective, np.array(start, float), jac=True, method="L-BFGS-B", options=options)
        if best is None or found.fun < best.fun:
            best = found
    a, b, e, alpha, beta = best.x
    print(json.dumps({
        "numpy": np.__version__, "scipy": scipy.__version__, "points": len(n), "E": np.exp(e), "A": np.exp(a),
        "B": np.exp(b), "alpha": alpha, "beta": beta, "objective": best.fun / SCALE,
    }))


if __name__ == "__main__":
    main()
