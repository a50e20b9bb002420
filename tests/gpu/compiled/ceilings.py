"""Numbers that may fall and must not rise.  Lower them when the kernels get better; that is all the work there is."""

from __future__ import annotations

# Bytes that a kernel of a case may spill from registers, over all chips, dtypes and derivatives that are checked.
# A case that is not named spills nothing.
SPILLED: dict[str, int] = {}

# Machine instructions of each pair (and feature or column, where these are long) in the inner loop, on either chip.
CEILINGS = {
    "Gaussian sum, D = 3": 9.75,
    "Gaussian sum, D = 10": 25.75,
    "Laplacian sum, D = 3": 10.75,
    "x-gradient of the Gaussian sum, D = 3": 14.45,
    "logsumexp of -sqdist, D = 3": 12.7,
    "Gaussian sum of complex b, D = 3": 11.0,
    "argmin of sqdist, D = 3": 9.6,
    "argKmin(10) of sqdist, D = 3": 9.15,
    "Kmin(32) of sqdist, D = 3": 15.35,
    "Gaussian sum, D = 1000, for each feature": 2.45,
    "Gaussian sum, D = 3, 16 columns, for each column": 1.57,
    "Gaussian sum, D = 3, 24 columns, for each column": 1.45,
    "sum of exp of inner products, D = 64, for each feature": 0.37,
    "argmin of sqdist in product form, D = 64, for each feature": 0.5,
    "logsumexp of inner products, D = 64, for each feature": 0.56,
    "Gaussian sum, D = 3, 64 columns, for each column": 0.73,
    "Gaussian sum, D = 3, 300 columns, for each column": 0.77,
    "attention, D = 64, 64 columns, for each column": 1.93,
    "attention of points, D = 3, 63 columns, for each column": 1.1,
    "x-gradient of the Gaussian sum, D = 200, for each column": 4.3,
    "x-gradient of the Gaussian sum, D = 1000, for each column": 14.3,
}
