"""Pure functions, distributions, layers, normalisers, the optimiser and addressable noise."""
