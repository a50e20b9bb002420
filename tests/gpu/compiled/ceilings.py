"""Numbers that may fall and must not rise.  Lower them when the kernels get better; that is all the work there is."""

from __future__ import annotations

# Bytes that a kernel of a case may spill from registers, over all chips, dtypes and derivatives that are checked.
# A case that is not named spills nothing.
SPILLED = {
    "K @ b": 416,
    "logsumexp with weight": 976,
    "sum over i": 1628,
    "sum over both": 1628,
    "min": 2312,
    "max over i": 2312,
    "min over both": 2312,
    "any": 612,
}

# Of each pair in the inner loop: all machine instructions, and those among them that move spilled registers.
CEILINGS = {
    ("Gaussian sum, D = 3", "h100"): {"instructions": 19.7, "spills": 0.0},
    ("Gaussian sum, D = 3", "a100"): {"instructions": 19.75, "spills": 0.0},
    ("Gaussian sum, D = 10", "h100"): {"instructions": 46.1, "spills": 4.97},
    ("Gaussian sum, D = 10", "a100"): {"instructions": 46.2, "spills": 4.91},
    ("Laplacian sum, D = 3", "h100"): {"instructions": 23.7, "spills": 0.0},
    ("Laplacian sum, D = 3", "a100"): {"instructions": 23.75, "spills": 0.0},
    ("x-gradient of the Gaussian sum, D = 3", "h100"): {"instructions": 30.45, "spills": 0.0},
    ("x-gradient of the Gaussian sum, D = 3", "a100"): {"instructions": 30.5, "spills": 0.0},
    ("logsumexp, D = 3", "h100"): {"instructions": 35.5, "spills": 0.0},
    ("logsumexp, D = 3", "a100"): {"instructions": 35.6, "spills": 0.0},
    ("argmin, D = 3", "h100"): {"instructions": 12.5, "spills": 0.0},
    ("argmin, D = 3", "a100"): {"instructions": 12.5, "spills": 0.0},
}
