"""One page about a training: its facts, gathered once, as HTML for people and as a model card.

Read-only: it trains and plays nothing, and it writes nothing into the outs of a stage.
"""
