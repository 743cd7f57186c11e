#!/usr/bin/env bash
# Train and score on generated images: no download, a few minutes on two CPU cores. Flags are passed to train.py.
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset demo "$@"
