# SPDX-License-Identifier: MIT
"""Break the CUDA kernels in one place at a time, and see that the tests notice every time.

    python tests/emulator/mutants.py [--only TEXT] [--list]

Each mutant is a copy of csrc with one change, executed by test_emulated_kernels.py. Exit code 1 if
one survives. The record goes to benchmarks/results/mutants.json.

The emulator's memory is sequentially consistent: a barrier that only orders memory, between lanes
that a shuffle has brought together already (nchw_forward_kernel, before a plane is read back), is
beyond it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TESTS = HERE / "test_emulated_kernels.py"
RECORD = ROOT / "benchmarks" / "results" / "mutants.json"


@dataclass(frozen=True)
class Mutant:
    """One change: `right` must occur exactly once in the file under csrc."""

    fault: str
    file: str
    right: str
    wrong: str


INDEX, REDUCE, FOLD = "common/index.cuh", "common/reduce.cuh", "common/fold.cuh"
NCHW_FWD, NCHW_BWD = "ops/instance_norm_act_nchw_fwd.cu", "ops/instance_norm_act_nchw_bwd.cu"
NHWC_FWD, NHWC_BWD = "ops/instance_norm_act_nhwc_fwd.cu", "ops/instance_norm_act_nhwc_bwd.cu"
ACTIVATION = "ops/instance_norm_act_activation.cuh"
PAD, LOSS = "ops/reflect_pad2d.cu", "ops/loss.cuh"

MUTANTS = [
    Mutant("the mirror repeats the edge", INDEX, "2 * (size - 1) - k", "2 * size - 1 - k"),
    Mutant("the edge itself has a mirror image", INDEX, "i >= 1 && i <= pad", "i >= 0 && i <= pad"),
    Mutant("the last mirrored row is left out", INDEX, "i <= pad ? pad - i", "i < pad ? pad - i"),
    Mutant("< for <= at the far edge", INDEX, "from_end <= pad ?", "from_end < pad ?"),
    Mutant("one image is no image", INDEX, "(low & high) < 0", "(low | high) < 0"),
    Mutant("column images of the own row are lost", FOLD, "(i == 0 && j == 0)", "(i == 0)"),
    Mutant("half a warp is summed", REDUCE, "offset < 32; offset <<= 1) {\n    value +=",
           "offset < 16; offset <<= 1) {\n    value +="),
    Mutant("no barrier before shared memory is used again", REDUCE,
           "  __syncthreads();  // the array may still be read from an earlier sum\n", ""),
    Mutant("no barrier before shared memory is read", REDUCE,
           "shared[threadIdx.x / 32] = value;\n  __syncthreads();",
           "shared[threadIdx.x / 32] = value;"),
    Mutant("merging forgets the distance of the means", REDUCE,
           "their_m2 + d * d * weights.spread", "their_m2"),
    Mutant("the distance of the means is weighted wrongly", REDUCE, "spread(mine * share)",
           "spread(share)"),
    Mutant("values beyond the count are merged", REDUCE, "sum += i < counts ? value[i] : A(0);",
           "sum += value[i];"),
    Mutant("eps is missing", NCHW_FWD, "squares / static_cast<A>(pixels) + p.eps",
           "squares / static_cast<A>(pixels)"),
    Mutant("the variance is the unbiased one", NCHW_FWD,
           "squares / static_cast<A>(pixels) + p.eps",
           "squares / static_cast<A>(pixels - 1) + p.eps"),
    Mutant("the padded path does not activate", NCHW_FWD,
           "value = p.act((value - mean) * scale + bias);",
           "value = (value - mean) * scale + bias;"),
    Mutant("the residual is read as if it were dense", NCHW_FWD,
           "residual[h * p.residual.h + w * p.residual.w]", "residual[from]"),
    Mutant("no pixel is taken off first", NCHW_FWD, "active ? static_cast<A>(*x) : A(0)", "A(0)"),
    Mutant("eps is missing", NHWC_FWD, "static_cast<A>(p.grid.pixels) + p.eps",
           "static_cast<A>(p.grid.pixels)"),
    Mutant("no pixel is taken off first", NHWC_FWD, "element(loaded[u], i) - origin[i]",
           "element(loaded[u], i)"),
    Mutant("the last chunk is as long as the others", NHWC_FWD,
           "min(p.grid.chunk, p.grid.pixels - begin)", "p.grid.chunk"),
    Mutant("counts of lanes are not added", NHWC_FWD, "    counted += theirs;\n", ""),
    Mutant("warps' means are not compared", NHWC_FWD,
           "squares += shared_m2[w][c] + shared_count[w] * d * d;", "squares += shared_m2[w][c];"),
    Mutant("chunks' means are not compared", NHWC_FWD, "+ size(chunk) * d * d", ""),
    Mutant("no barrier before statistics are used", NHWC_FWD,
           "    }\n  }\n  __syncthreads();\n}\n", "    }\n  }\n}\n"),
    Mutant("the residual's columns are taken for rows", NHWC_FWD,
           "h * p.residual.h + w * p.residual.w", "w * p.residual.h + h * p.residual.w"),
    Mutant("at 0 the derivative is that above 0", ACTIVATION, "z > 0 ? g", "z >= 0 ? g"),
    Mutant("leaky_relu has no slope forward", ACTIVATION, "A(0) : z * slope", "A(0) : z"),
    Mutant("leaky_relu has no slope backward", ACTIVATION, "A(0) : g * slope", "A(0) : g"),
    Mutant("the second sum lacks rstd", NCHW_BWD, "block_sum(s2, shared) * rstd",
           "block_sum(s2, shared)"),
    Mutant("the skip's gradient is dropped", NCHW_BWD,
           "      if (skip) g[0] += static_cast<A>(skip[h * p.grad_skip.h + w * p.grad_skip.w]);\n",
           ""),
    Mutant("the pad's adjoint is dropped", NCHW_BWD, "if (grad_y && pad > 0)", "if (false)"),
    Mutant("the mean of the gradients stays", NCHW_BWD, "(offset + slope * d[i])",
           "(slope * d[i])"),
    Mutant("the activation's mask is dropped", NCHW_BWD,
           "const A dz = p.act.gradient(g[i], d[i] * scale + bias);\n      g[i]",
           "const A dz = g[i];\n      g[i]"),
    Mutant("the second sum lacks rstd", NHWC_BWD,
           "total2 * p.rstd[at.statistic(p.grid, at.first_channel + c)]", "total2"),
    Mutant("the mean of the gradients has the wrong sign", NHWC_BWD,
           "constants.offset[c] = -scale", "constants.offset[c] = scale"),
    Mutant("the deviations' part is dropped", NHWC_BWD, "(offset[i] + slope[i] * d)",
           "(offset[i])"),
    Mutant("the pad's adjoint is dropped", NHWC_BWD, "if (grad_y && p.grid.pad > 0)",
           "if (false)"),
    Mutant("the sums are those of the second chunk", NHWC_BWD, "if (at.chunk == 0) {\n      p.sums",
           "if (at.chunk == 1) {\n      p.sums"),
    Mutant("rows have the mirrors of columns", PAD, "mirrors(w, rows.pad, rows.width)",
           "mirrors(w, rows.pad, rows.height)"),
    Mutant("the last element of a row is not written", PAD,
           "if (i < rows.out_row) to[i] = word[u];", "if (i + 1 < rows.out_row) to[i] = word[u];"),
    Mutant("the own pixel lies a pad further left", PAD, " + rows.pad * pixel;", ";"),
    Mutant("the tail of a tensor is not summed", LOSS,
           "  if (tail < p.numel) sum += sum_terms<Loss, T, 1>(p, tail);\n", ""),
    Mutant("equal values have a sign", LOSS, "(d[i] > 0) - (d[i] < 0)", "(d[i] >= 0) - (d[i] < 0)"),
    Mutant("sums are rounded to the tensors' dtype", LOSS,
           "sum += Loss::term(d[k]);",
           "sum = static_cast<Accumulator<T>>(static_cast<T>(sum + Loss::term(d[k])));"),
    Mutant("b has a's gradient", LOSS, "d[i] = -d[i];", "d[i] = d[i];"),
    Mutant("the derivative of a square is the square's root", "ops/lsgan_loss.cu", "return 2 * d;",
           "return d;"),
    Mutant("a bfloat16 brings its neighbour's bits along", "common/vector.cuh",
           "word = i & 1 ? word & 0xffff0000u : word << 16;", "word = i & 1 ? word : word << 16;"),
]  # fmt: skip


def main() -> int:
    """Run the mutants and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose description or file holds this")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if options.only in f"{m.file}: {m.fault}"]
    if options.list:
        print(*(f"{m.file}: {m.fault}" for m in chosen), sep="\n")
        return 0
    began = time.perf_counter()
    if _first_failure(None) is not None:
        print("the unchanged kernels fail: see pytest tests/emulator")
        return 1
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, killer in zip(chosen, pool.map(_first_failure, chosen), strict=True):
            rows.append({"file": mutant.file, "fault": mutant.fault, "killed_by": killer})
            verdict = "killed" if killer else "SURVIVES"
            print(f"{verdict:9} {mutant.file}: {mutant.fault}", flush=True)
    survivors = [row for row in rows if row["killed_by"] is None]
    seconds = time.perf_counter() - began
    print(f"{len(rows) - len(survivors)} of {len(rows)} killed, {seconds:.0f} s")
    if not options.only:
        RECORD.write_text(json.dumps({"mutants": rows}, indent=1) + "\n")
        print(f"written to {RECORD}")
    return 1 if survivors else 0


def _first_failure(mutant: Mutant | None) -> str | None:
    """Return what killed the mutant, or None."""
    with tempfile.TemporaryDirectory() as folder:
        csrc = Path(folder) / "csrc"
        shutil.copytree(ROOT / "csrc", csrc)
        if mutant is not None:
            path = csrc / mutant.file
            text = path.read_text()
            if text.count(mutant.right) != 1:
                raise ValueError(
                    f"mutants: {mutant.file} must hold {mutant.right!r} once, and holds it "
                    f"{text.count(mutant.right)} times. The kernel changed: change the mutant too."
                )
            path.write_text(text.replace(mutant.right, mutant.wrong))
        # The tests that can see the file at all, to be done sooner.
        part = Path(mutant.file).name.partition("_")[0] if mutant else "common"
        tests = {
            "instance": "norm or derivative",
            "reflect": "pad2d",
            "loss.cuh": "loss",
            "lsgan": "loss",
        }
        environment = os.environ | {"CYCLEGAN_FAST_TEST_CSRC": str(csrc), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
            + ["--show-capture=no", str(TESTS), "-k", tests.get(part, "test")],
            cwd=ROOT, env=environment, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode == 0:
        return None
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not named:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return named[0].split(" ", 1)[1].split(" - ")[0].removeprefix("tests/emulator/")


if __name__ == "__main__":
    sys.exit(main())
