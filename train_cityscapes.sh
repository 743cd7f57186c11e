#!/usr/bin/env bash
# Cityscapes with fine labels, 769 crops of the native size. Further flags go to train.py: bash train_cityscapes.sh --amp bf16
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset cityscapes --backbone resnet "$@"
