"""What a pair computes, on its way to few instructions: recorded, rearranged, and written in what Triton has."""
