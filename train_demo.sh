#!/usr/bin/env bash
# Train and score on shapes drawn on the fly: no download, a few minutes on two CPU cores.
set -euo pipefail
. "$(dirname "$0")/scripts/setup.sh"
launch --dataset demo "$@"
