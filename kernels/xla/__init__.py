"""Tiled loops that XLA compiles: `kernel` walks through tiles, `plan` chooses them, each shape of a loop has a file."""
