"""Values that flags and data share with modules that import torch. They stand here, as flags are read before torch."""

IGNORE_INDEX = 255  # the label of pixels that neither train nor score
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"off": None, "bf16": "bfloat16", "fp16": "float16"}  # value of --amp -> name of the dtype in torch
LOSSES = {  # value of --loss-type -> class in losses.py
    "ce": "CrossEntropy",
    "focal": "FocalLoss",
    "ohem": "OHEMLoss",
}
OPTIMIZERS = ("sgd", "adamw")
