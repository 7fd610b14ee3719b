"""The code blocks of the documentation, and the small data on which a test runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors.torch import save_file
from typer.testing import CliRunner

import winnow
from tests.support import corpora
from tests.support.tree import ROOT

FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\s*)?"
    r"^(?P<indent>[ ]*)```(?P<language>sh|python)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
SMALLER = {
    r"(?<=-n )[\d_,]{3,}": "40",
    r"\bN=[\d_]{3,}": "N=40",
    r"\bn=[\d_]{3,}": "n=40",
    r"--(?:epochs|steps) [\d.]+": "--steps 3",
    r"--classes names\.txt": "--classes names.txt --input-size 64",
}
"""Pattern of a size in the documentation -> size for the small data."""
MAIN_JOB = """\
winnow import-teacher --builder torchvision:resnet18 --weights r18.safetensors \
    --classes names.txt --input-size 32 runs/teachers/r18
winnow select --corpus '/data/lake/{00000..00003}.tar' -n 40 --workers 0
winnow distill --student resnet8x4 --student timm:mobilenetv3_small_050 --steps 3 --workers 0
"""
"""The commands whose results a how-to page assumes: a teacher, shards and two students."""
NEEDS_A_SHELL = re.compile(r"[|;&<>$`]|^\s*(?!winnow |#)\S", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `reason` says why it is not run, and is None if it is run."""

    language: str
    code: str
    line: int
    reason: str | None


def pages() -> list[Path]:
    """Return the README, CONTRIBUTING.md and every page except the log and the changelog."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    records = {"LOG.md", "changelog.md"}
    return [page for page in paths if page.name not in records and "_build" not in page.parts]


def blocks_of(text: str) -> list[Block]:
    """Return the `sh` and `python` blocks of a page, in order."""
    return [
        Block(
            match["language"],
            re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE),
            text[: match.start("code")].count("\n") + 1,
            match["reason"],
        )
        for match in FENCE.finditer(text)
    ]


def draw_world(folder: Path) -> None:
    """Draw data/lake, data/photos and data/val; write a teacher's weights and class names."""
    for part in range(4):
        corpora.good_tar(folder / f"data/lake/{part:05d}.tar", 24, first=24 * part)
    for seed in range(24):
        photograph = folder / f"data/photos/{2020 + seed % 3}/IMG_{seed:04d}.jpg"
        photograph.parent.mkdir(parents=True, exist_ok=True)
        photograph.write_bytes(corpora.encoded(1000 + seed, side=48))
        labeled = folder / f"data/val/{corpora.CLASSES[seed % 3]}/{seed:04d}.png"
        labeled.parent.mkdir(parents=True, exist_ok=True)
        labeled.write_bytes(corpora.encoded(2000 + seed, form="PNG"))
    (folder / "names.txt").write_text("\n".join(corpora.CLASSES) + "\n")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=len(corpora.CLASSES))
    save_file(net.state_dict(), folder / "r18.safetensors")


class Page:
    """Run the blocks of one page, in order, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, block: Block) -> str:
        """Run a block with small sizes; return the output if a command failed, else ''."""
        code = self.smaller(block.code)
        if block.language == "sh":
            return self.run_shell(code) if NEEDS_A_SHELL.search(code) else self.run_winnow(code)
        exec(compile(code, f"<block at line {block.line}>", "exec"), self.names)
        return ""

    def smaller(self, code: str) -> str:
        """Return the code with the paths and sizes of the small data."""
        code = code.replace("/data/", f"{self.folder}/data/")
        for pattern, size in SMALLER.items():
            code = re.sub(pattern, size, code)
        return re.sub(r"(?<=[(, ])(?:epochs|steps)=[\d._]+(?=[,)])", "steps=3", code)

    def run_winnow(self, code: str) -> str:
        """Run a block that only calls `winnow`, line by line, in this process."""
        for line in code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                result = CliRunner().invoke(winnow.app, words[1:])
                if result.exit_code:
                    return f"{line}\n{result.output}\n{result.exception!r}"
        return ""

    def run_shell(self, code: str) -> str:
        """Run a block with bash, which stops at the first command that fails."""
        tools = self.folder / ".tools"
        if not tools.exists():
            tools.mkdir()
            for name, command in shims().items():
                (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
                (tools / name).chmod(0o755)
        path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            cwd=self.folder, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return f"{code}\n{result.stdout}" if result.returncode else ""


def shims() -> dict[str, str]:
    """Return the program that a page names -> the command that runs it in the test."""
    make = f"{shutil.which('make')} -C {ROOT} -o {ROOT}/.venv/.ready -o .venv/.ready"
    return {
        "winnow": f"{sys.executable} -m winnow",
        "python": sys.executable,
        "torchrun": f"{sys.executable} -m torch.distributed.run",
        "make": f'{make} RUNS="$PWD/runs" VENV={Path(sys.executable).parents[1]}',
    }
