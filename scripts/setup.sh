# Sourced by the scripts in the parent folder. Sets PYTHON to a Python that has the requirements: $PYTHON, .venv, python3 or
# python; if none has them, it makes .venv and installs them there.
# Defines `launch ARGS...`: run train.py, or with several GPUs torchrun with one process for each.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
needed=("$here/requirements.txt" ${EXTRA_REQUIREMENTS:+"$here/$EXTRA_REQUIREMENTS"})

has_requirements() {
    "$1" - "${needed[@]}" <<'PYTHON' 2>/dev/null
import importlib.metadata, re, sys
assert sys.version_info >= (3, 10)
def number(version): return tuple(map(int, re.findall(r"\d+", version)[:3]))
for line in (line for path in sys.argv[1:] for line in open(path)):
    name, bound = line.split("#")[0].strip().split(">=")
    assert number(importlib.metadata.version(name)) >= number(bound), name
PYTHON
}

choose_python() {
    for candidate in "${PYTHON:-}" "$here/.venv/bin/python" python3 python; do
        if [ -n "$candidate" ] && has_requirements "$candidate"; then PYTHON=$candidate; return; fi
    done
    for candidate in python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "installing $(basename -a "${needed[@]}" | paste -sd' ') into $here/.venv (a few minutes)" >&2
            "$candidate" -m venv "$here/.venv"
            "$here/.venv/bin/python" -m pip install -q "${needed[@]/#/-r}"
            PYTHON=$here/.venv/bin/python
            return
        fi
    done
    echo "error: no Python >= 3.10 found: install one" >&2
    exit 2
}

launch() {
    # --help, and mistakes before torch counts the GPUs and torchrun starts a process for each
    help=$(PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" -m config.early "$@") || exit
    if [ -n "$help" ]; then echo "$help"; exit; fi
    gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
    if [ "$gpus" -gt 1 ]; then
        exec "$PYTHON" -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$here/train.py" "$@"
    fi
    exec "$PYTHON" "$here/train.py" "$@"
}

choose_python
