#!/usr/bin/env bash
# COCO 2017 with VOC's 21 classes. Further flags go to train.py: bash train_coco.sh --backbone mobilenet
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset coco --backbone resnet "$@"
