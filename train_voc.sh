#!/usr/bin/env bash
# Train on Pascal VOC 2012 with SBD, 10,582 images. Flags are passed to train.py: bash train_voc.sh --epochs 1
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset pascal --use-sbd --backbone resnet "$@"
