#!/usr/bin/env bash
# Train on Cityscapes with fine labels, 769x769 crops. Flags are passed to train.py: bash train_cityscapes.sh --amp bf16
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset cityscapes --backbone resnet "$@"
