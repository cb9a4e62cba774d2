# SPDX-License-Identifier: MIT
"""``cyclegan-fast doctor``: what is installed, what serves which op and why, what to do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import Any

from cyclegan_fast.cli.arguments import parse
from cyclegan_fast.cli.failures import FAILED

ABOUT = """Show versions, devices, what was compiled, and which back end serves which op and why;
run every kernel once against its reference. The exit status is 1 if something is broken."""

PACKAGES = (
    *("torch", "triton", "numpy", "pillow", "tyro", "pyyaml", "rich", "safetensors"),
    *("jinja2", "matplotlib"),
)


@dataclass(frozen=True)
class DoctorOptions:
    """How to tell."""

    json: bool = False
    """Print one JSON object instead of text."""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status."""
    options = parse(DoctorOptions, arguments, "doctor", ABOUT)
    facts = examine()
    print(json.dumps(facts, indent=1) if options.json else text(facts))
    return FAILED if facts["broken"] else 0


def examine() -> dict[str, Any]:
    """Return everything that the command shows, as plain values."""
    facts: dict[str, Any] = {
        "versions": _versions(),
        "cpu": _cpu(),
        "gpus": _gpus(),
        "compiled": _compiled(),
        "policy": _policy(),
        "ops": _ops(),
        "disk": _disk(),
    }
    facts["broken"] = _broken(facts)
    facts["advice"] = _advice(facts)
    return facts


def _versions() -> dict[str, str]:
    from cyclegan_fast._version import __version__

    versions = {"cyclegan_fast": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "missing"
    versions["system"] = platform.platform()
    return versions


def _cpu() -> dict[str, Any]:
    import torch

    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _gpus() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"list": [], "why_none": _why_no_gpu()}
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "name": properties.name,
                "capability": f"{properties.major}.{properties.minor}",
                "memory_gb": round(total / 1e9, 1),
                "free_gb": round(free / 1e9, 1),
                "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            }
        )
    return {"list": found, "cuda": torch.version.cuda}


def _why_no_gpu() -> str:
    import torch

    if not torch.version.cuda:
        return f"torch {torch.__version__} was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0].split(". ")[0]
    return "torch sees no device"


def _compiled() -> dict[str, Any]:
    from cyclegan_fast import _extension

    try:
        info = _extension.build_info()
    except ImportError:
        info = {}
    return {
        "cpu": _extension.available(),
        "cpu_why_not": _extension.why_not(),
        "cuda": _extension.cuda_available(),
        "cuda_why_not": _extension.why_not_cuda(),
        "build": info,
    }


def _policy() -> str:
    from cyclegan_fast import backend

    return backend.policy()


def _ops() -> list[dict[str, Any]]:
    import torch

    from cyclegan_fast import backend
    from cyclegan_fast.cli import selfcheck
    from cyclegan_fast.errors import BackendUnavailableError

    rows = []
    for device in ["cpu"] + (["cuda"] if torch.cuda.is_available() else []):
        for op in selfcheck.stems():
            try:
                chosen = backend.resolve(op, device, torch.float32)
            except BackendUnavailableError as error:
                chosen = f"none: {error}"
            others = {}
            checks = []
            for name in backend.BACKENDS[1:]:
                reason = backend.why_not(op, name, device, torch.float32)
                if reason is None:
                    checks.append(selfcheck.check(op, device, name))
                if name != chosen:
                    others[name] = reason or "available, not first choice"
            rows.append(
                {
                    "op": op,
                    "device": device,
                    "served_by": chosen,
                    "others": others,
                    "checks": [{**asdict(c), "passed": c.passed} for c in checks],
                }
            )
    return rows


def _disk() -> dict[str, Any]:
    return {"folder": os.getcwd(), "free_gb": round(shutil.disk_usage(".").free / 1e9, 1)}


def _broken(facts: dict[str, Any]) -> list[str]:
    broken = [f"package {name} is missing" for name in _missing(facts)]
    compiled = facts["compiled"]
    # A library that is there and does not load is broken; one that was never built is a choice.
    for kind in ("cpu", "cuda"):
        if "does not load here" in compiled[f"{kind}_why_not"]:
            broken.append(compiled[f"{kind}_why_not"])
    for row in facts["ops"]:
        if row["served_by"].startswith("none"):
            broken.append(f"{row['op']} on {row['device']}: {row['served_by']}")
        for check in row["checks"]:
            if not check["passed"]:
                said = check["failure"] or f"error {check['error']:.2g} > {check['allowed']:.2g}"
                broken.append(f"{row['op']} on {row['device']} by {check['backend']}: {said}")
    return broken


def _missing(facts: dict[str, Any]) -> list[str]:
    needed = [name for name in PACKAGES if name != "triton"]  # Triton has wheels for Linux alone
    return [name for name in needed if facts["versions"][name] == "missing"]


def _advice(facts: dict[str, Any]) -> list[str]:
    advice = []
    if missing := _missing(facts):
        advice.append(f"{sys.executable} -m pip install {' '.join(missing)}")
    if not facts["compiled"]["cpu"]:
        advice.append(
            "compiled kernels: install g++ and make, then install this package again; until then "
            "plain PyTorch computes the same, more slowly"
        )
    if facts["gpus"]["list"] and not facts["compiled"]["cuda"]:
        advice.append("CUDA kernels: install nvcc, then install this package again")
    if facts["broken"]:
        advice.append(
            "CYCLEGAN_FAST_BACKEND=reference runs on plain PyTorch alone; when reporting a fault, "
            "add what `cyclegan-fast doctor --json` prints"
        )
    elif not facts["gpus"]["list"]:
        advice.append("no GPU: everything works; for a first result run `cyclegan-fast demo`")
    else:
        advice.append("all is well: run `cyclegan-fast demo`, or `cyclegan-fast train --help`")
    if facts["disk"]["free_gb"] < 2:
        advice.append("little room on this disk: a run at the defaults keeps about 1 GB")
    return advice


def text(facts: dict[str, Any]) -> str:
    """Return the facts as lines for people."""
    versions, cpu, compiled = facts["versions"], facts["cpu"], facts["compiled"]
    lines = [
        f"cyclegan-fast {versions['cyclegan_fast']} · Python {versions['python']} · "
        f"torch {versions['torch']} · triton {versions['triton']}",
        f"{versions['system']}",
        "",
        f"CPU       {cpu['machine']}, {cpu['instructions']}, {cpu['cores']} cores, "
        f"{cpu['threads']} threads",
    ]
    gpus = facts["gpus"]
    lines += [
        f"GPU {i}     {g['name']}, sm_{g['capability'].replace('.', '')}, {g['memory_gb']} GB "
        f"({g['free_gb']} free), {'bf16' if g['bf16'] else 'no bf16'}"
        for i, g in enumerate(gpus["list"])
    ] or [f"GPU       none: {gpus['why_none']}"]
    build = compiled["build"]
    lines += [
        "",
        f"compiled  CPU kernels: {'loaded' if compiled['cpu'] else compiled['cpu_why_not']}",
    ]
    if build:
        lines[-1] += (
            f" ({build['compiler']}, {', '.join(build['instruction_sets'])}, "
            f"against torch {build['torch']})"
        )
    lines.append(
        f"          CUDA kernels: {'loaded' if compiled['cuda'] else compiled['cuda_why_not']}"
    )
    lines += ["", f"ops       policy {facts['policy']}; error against float64, allowed in brackets"]
    for row in facts["ops"]:
        lines.append(f"  {row['op']} on {row['device']}: {row['served_by']}")
        for check in row["checks"]:
            mark = "ok    " if check["passed"] else "WRONG "
            said = check["failure"] or f"{check['error']:.1e} ({check['allowed']:.1e})"
            lines.append(f"    {mark} {check['backend']:<10} {said}")
        lines += [
            f"    -      {name:<10} {reason}"
            for name, reason in row["others"].items()
            if name not in {check["backend"] for check in row["checks"]}
        ]
    lines += ["", f"disk      {facts['disk']['free_gb']} GB free in {facts['disk']['folder']}", ""]
    lines += [f"BROKEN    {item}" for item in facts["broken"]]
    lines += [f"do        {item}" for item in facts["advice"]]
    return "\n".join(lines)
