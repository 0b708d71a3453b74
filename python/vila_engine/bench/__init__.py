"""Benchmarks of true shapes with random weights, each figure beside the limit of the machine it was measured on."""
