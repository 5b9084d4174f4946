"""`dreamer tune`: a search for better parameters that can be killed, continued and shared.

`config` and `space` say what is searched; `ledger` keeps the study in an Optuna storage, so that
every point is tried exactly once however many workers there are; `stages` and `experiments` train a
point; `worker` does it again and again; `crew` starts workers and watches them; `final` trains the
best again on other seeds and writes the winner into `params.yaml`.
"""
