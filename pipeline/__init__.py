"""The reproducible production of agents: stages, parameters, tracking. Thin: no maths."""
