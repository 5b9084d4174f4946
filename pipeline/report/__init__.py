"""Tables and pictures that stages leave in their outs: the same input gives the same bytes.

Import the files of this folder, not the folder: a stage depends on the code that it imports, and a
change to a picture of `evaluate` must not call for training again.
"""
