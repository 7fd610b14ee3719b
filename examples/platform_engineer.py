"""
A platform engineer who automates
=================================

You run winnow for other people, from a scheduler. This notebook calls the commands as a job does:
it reads the answers as JSON, acts on exit codes, verifies artifacts, kills a selection and
resumes it, measures the disk, and reads the shards without winnow.

:doc:`Automate winnow </how-to/automate>` and :doc:`Resume after a kill </how-to/resume-and-kill>`
are the pages about this subject. Only processes and files matter here, so the images are drawn by
code and the teacher is untrained. The notebook needs no data and no network. It keeps everything
in the folder ``runs/platform`` and deletes that folder when it starts.
"""

import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import webdataset as wds

from indexes import build_net, save_teacher
from pipeline import open_corpus

HOME = Path("runs/platform")
shutil.rmtree(HOME, ignore_errors=True)

# %%
# A corpus and a teacher
# ----------------------
#
# The corpus has three tars of 200 images each from the corpus ``demo``, which code draws. The
# teacher is a net with random weights. Both stand in for yours.

(HOME / "lake").mkdir(parents=True)
for number, part in enumerate(open_corpus("demo").parts[:3]):
    with wds.TarWriter(str(HOME / "lake" / f"{number:05d}.tar")) as tar:
        for sample in itertools.islice(part, 200):
            tar.write({"__key__": sample.key, sample.ext: sample.data})

torch.manual_seed(0)
net = build_net("resnet8", num_classes=4)
save_teacher(HOME / "teacher", net, classes=["north", "east", "south", "west"], input_size=16)

# %%
# The answer of a command is JSON
# -------------------------------
#
# With ``--json`` standard output holds one JSON document and nothing else. The log goes to
# standard error; ``--log-format json`` makes each of its lines a JSON object. A job should give
# explicit paths: the defaults depend on the working directory and on the last selection.
# ``--workers 0`` decodes the images without another process, which is faster for so few images.


def command(*words: object) -> list[str]:
    """Return the command line of `winnow` with these words."""
    return [sys.executable, "-m", "winnow", *map(str, words)]


def winnow(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command of winnow to its end, whatever its exit code is."""
    return subprocess.run(command(*words), capture_output=True, text=True, check=False)


def selection(runs: Path) -> list[object]:
    """Return the words of the selection that this page runs, with `runs` for its artifacts."""
    corpus, teacher = HOME / "lake" / "{00000..00002}.tar", HOME / "teacher"
    words = ["select", "--corpus", corpus, "--teacher", teacher, "-n", 100, "--workers", 0]
    return [*words, "--runs", runs, "--json", "--log-format", "json"]


result = winnow(*selection(HOME / "nightly"))
answer = json.loads(result.stdout)
print("exit code", result.returncode)
for name in ("shards", "corpus", "method", "num_samples", "num_bytes", "funnel"):
    print(f"{name:12s} {answer[name]}")

# %%
# The log of the same run has a line for each stage, which says where its artifact is:

for line in result.stderr.splitlines():
    if line.startswith("{") and ": made" in (message := json.loads(line)["message"]):
        print(message)

# %%
# Exit codes
# ----------
#
# A script distinguishes four of them: 0 for success, 1 for a wrong value or a file that cannot be
# used, 2 for wrong usage of the command line, and 3 for an artifact that is missing, damaged or
# refused. Codes 1 and 3 come with one line on standard error.

mistakes = {
    "a missing file": ["import-teacher", "--builder", "resnet8", "--weights", "r8.safetensors",
                       "--classes", "missing.txt", HOME / "new"],
    "no such option": ["verify", "--everything", HOME / "teacher"],
    "no artifact": ["verify", HOME / "absent"],
}  # fmt: skip
for mistake, words in mistakes.items():
    result = winnow(*words)
    print(f"{mistake}: exit code {result.returncode}")
    if result.stderr.startswith("error:"):
        print("   ", result.stderr.strip())

# %%
# Verify
# ------
#
# An artifact is a directory with a ``card.json``, which is written last. ``winnow verify``
# compares every file with the card and reads the shards once with the stock ``webdataset``
# package. Run it after a copy to another machine. Here the copy has one wrong byte:

shards = Path(answer["shards"])
result = winnow("verify", shards, "--json")
print("exit code", result.returncode, json.loads(result.stdout)["checked"])

copy = shutil.copytree(shards, HOME / "copy")
tar = copy / "shard-000000.tar"
data = bytearray(tar.read_bytes())
data[1_000] ^= 1
tar.write_bytes(data)

result = winnow("verify", copy, "--json")
print("exit code", result.returncode, result.stderr.strip())

# %%
# Kill a selection, and run it again
# ----------------------------------
#
# A process cannot catch SIGKILL, so it stands for a crash or a power cut. The loop reads the log
# of ``winnow select`` and kills the process when the first stage has ended. No waiting time is
# needed: the loop also ends if the process ends by itself, because its log ends with it.

crashed = HOME / "crashed"
with subprocess.Popen(
    command(*selection(crashed)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
) as process:
    assert process.stderr is not None
    for line in process.stderr:
        if "embeddings: made" in line:
            process.kill()
            break

assert process.returncode == -signal.SIGKILL
print("ended by", signal.Signals(-process.returncode).name)
print("shards:", sorted(crashed.glob("shards/*/card.json")))

# %%
# The same command continues; there is no option for resuming. ``unchanged`` marks a stage that
# was finished and is not repeated.

result = winnow(*selection(crashed))
for line in result.stderr.splitlines():
    if line.startswith("{"):
        message = json.loads(line)["message"]
        if ": made" in message or ": unchanged" in message:
            print(message)

# %%
# The resumed selection wrote the same bytes as the one without interruption.


def digests(directory: Path) -> dict[str, str]:
    """Return the sha256 of every file of a shard set."""
    files = sorted(directory.glob("shard-*"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


resumed = Path(json.loads(result.stdout)["shards"])
assert digests(resumed) == digests(shards)
for name, digest in digests(resumed).items():
    print(name, digest[:16], "the same in both")

# %%
# Disk
# ----
#
# All artifacts lie under the directory that ``--runs`` names, in a folder for each kind. A
# training reads the shards and the teacher, and nothing else here. The other kinds make the next
# selection fast; if you delete one, the next selection that needs it makes it again. The
# embeddings and the vectors grow with the corpus, the shards with ``-n``.

runs = HOME / "nightly"
sizes = {
    kind.name: sum(file.stat().st_size for file in kind.rglob("*") if file.is_file())
    for kind in sorted(path for path in runs.iterdir() if path.is_dir())
}
for kind, size in sizes.items():
    print(f"{kind:12s} {size:9,} bytes")

figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
axis.barh(list(sizes), [size / 1e6 for size in sizes.values()])
axis.invert_yaxis()
axis.set_xlabel("MB on disk")
figure.savefig(HOME / "disk.png")

# %%
# ``last-shards.json`` names the shards of the last selection, as an absolute path. ``winnow
# distill`` reads it if ``--shards`` is not given. A job gives ``--shards`` instead, because
# another selection may have ended in between.

last = json.loads((runs / "last-shards.json").read_text())
assert Path(last["shards"]) == shards.resolve()
print({name: Path(path).name for name, path in last.items()})

# %%
# Read the shards without winnow
# ------------------------------
#
# The shards are WebDataset tars. An image keeps the bytes and the extension that it has in the
# corpus. :doc:`Read the shards </how-to/read-the-shards>` shows PyTorch and pandas as well.

tars = [str(path) for path in sorted(shards.glob("shard-*.tar"))]
count = 0
for sample in wds.WebDataset(tars, shardshuffle=False).decode("pil"):
    count += 1
    if count <= 3:
        image = sample.get("jpg") or sample.get("png")
        facts, logits = sample["json"], sample["logits.npy"]
        print(
            sample["__key__"], image.size, facts["label"], round(facts["weight"], 3), logits.shape
        )
print(count, "samples")

# %%
# What to do next
# ---------------
#
# - :doc:`Several GPUs </how-to/several-gpus>` starts a training with ``torchrun``.
# - :doc:`File formats </reference/file-formats>` lists every file with its schema version.
# - :doc:`Troubleshooting </troubleshooting/index>` has an entry for every error message.
