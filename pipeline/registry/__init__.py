"""Agents by name: versions in MLflow's model registry, and the gate before the alias `champion`.

Commands only: no stage registers or promotes anything.
"""
