"""The paper's ablations as commands: rows of configs/ablation.py over several seeds, in a table and a plot."""
