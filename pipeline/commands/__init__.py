"""What the `dreamer` command does, one file per command or two that belong together.

Each command yields the lines to print. `pipeline.arguments` imports it when it is asked for: it
brings torch along, and `--help` should not.
"""
