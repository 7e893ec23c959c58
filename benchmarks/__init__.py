"""What the losses cost, measured beside others in one run: ``python -m benchmarks``."""
