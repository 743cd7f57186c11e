#!/usr/bin/env bash
# Pascal VOC 2012 with SBD: 10,582 images, the paper's recipe. Further flags go to train.py: bash train_voc.sh --epochs 1
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset pascal --use-sbd --backbone resnet "$@"
