"""GPU kernels: two emitters, `pallas` and `ir`, beside the first the kernels of ranges, groups, long features and
matrix products; in `arithmetic`, what one pair computes, rearranged to fewer instructions."""
