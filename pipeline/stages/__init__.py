"""The four DVC stages: collect, pretrain, train, evaluate."""
