"""A differential fuzzer: every loss against the formula of its paper, in plain float64."""
