#!/usr/bin/env bash
# Everything that needs a GPU, in the order in which a result would be believed: tests, then op
# benchmarks, then the whole iteration against every peer, then the tables.
#   VENV_PYTHON  the interpreter (default python3)
#   UPSTREAM     a checkout of pytorch-CycleGAN-and-pix2pix, to be timed unmodified
set -euo pipefail
cd "$(dirname "$0")/.."
python=${VENV_PYTHON:-python3}
bench=(-o python_files='bench_*.py' -o python_functions='bench_*' --benchmark-columns=median,rounds)

"$python" -m pytest -q -m gpu tests
if [[ -n ${UPSTREAM:-} ]]; then
  "$python" benchmarks/check_baseline.py "$UPSTREAM"
fi
for batch in 1 8; do
  "$python" -m pytest benchmarks -q "${bench[@]}" --bench-batch "$batch"
  "$python" benchmarks/bench_step.py --batch "$batch" --peers all ${UPSTREAM:+--upstream "$UPSTREAM"}
done
"$python" benchmarks/tables.py
