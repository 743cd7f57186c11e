"""Values that flags and data share with modules that import torch. They stand here, as flags are read before torch."""

IGNORE_INDEX = 255  # the label of pixels that neither train nor score
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"off": None, "bf16": "bfloat16", "fp16": "float16"}  # value of --amp -> name of the dtype in torch
LOSSES = {  # value of --loss-type -> "module.Class" in utils/
    "ce": "losses.CrossEntropy",
    "focal": "losses.FocalLoss",
    "ohem": "losses.OHEMLoss",
    "dice": "overlap_losses.DiceLoss",
    "lovasz": "overlap_losses.LovaszLoss",
    "rmi": "region_losses.RMILoss",
}
OPTIMIZERS = ("sgd", "adamw")
