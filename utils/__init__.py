"""What is not a network, a dataset or a command: losses, optimizer, inference, scoring, files of a run."""
