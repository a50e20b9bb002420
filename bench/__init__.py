"""Measurements beside peers: `python -m bench`, and `python -m bench.tutorial` for KeOps' tutorial at full size."""
