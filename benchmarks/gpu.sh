#!/usr/bin/env bash
# All figures of a GPU in one call, under 8 minutes: the training step of every backbone, then the way of the data.
# Markdown on the screen; JSON under $OUT where it is set. Without a GPU one line, exit code 0.
#   bash benchmarks/gpu.sh [--device cpu --quick]
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
if [[ "$*" != *"--device cpu"* ]] && ! "$python" -c '
import sys
try:
    import torch
except ImportError:
    sys.exit(1)
sys.exit(not torch.cuda.is_available())'; then
    echo "gpu.sh: $python sees no GPU (or no torch: PYTHON=... names another), nothing is measured"
    exit 0
fi
code=0
"$python" benchmarks/gpu_step.py --budget 230 "$@" || code=1
if [[ -f benchmarks/gpu_data.py ]]; then
    data=()
    [[ "$*" == *"--device cpu"* ]] && data=(--device cpu)
    [[ "$*" == *--quick* ]] && data+=(--records 600 --seconds 0.05 --rounds 1 --workers 0)
    "$python" benchmarks/gpu_data.py "${data[@]}" || code=1
fi
exit "$code"
