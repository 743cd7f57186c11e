#!/usr/bin/env bash
# Train on COCO 2017 with VOC's 21 classes. Flags are passed to train.py: bash train_coco.sh --backbone mobilenet
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset coco --backbone resnet "$@"
