"""GPU kernels: two emitters, `pallas` and `ir`, and what one pair computes, rearranged to fewer instructions."""
