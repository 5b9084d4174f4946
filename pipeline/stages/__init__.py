"""The DVC stages: collect, pretrain, train, evaluate, and seeds, which repeats them."""
