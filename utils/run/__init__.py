"""The files of a training run: folder, checkpoints, log, TensorBoard events."""
