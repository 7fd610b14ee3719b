"""Train a student on curated shards in a plain PyTorch loop.

Command: python examples/plain_pytorch_loop.py runs/shards/NAME
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from indexes import Geometry, Shards, build_net, load_view, open_shards


class ShardImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The pixels [3, S, S] in 0-1, the weight and the teacher logits [C] of each image."""

    def __init__(self, shards: Shards) -> None:
        self.shards, self.geometry = shards, Geometry(shards.input_size)
        self.weights = torch.from_numpy(shards.columns["weight"])
        self.logits = torch.from_numpy(shards.logits).float()

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        pixels_SS3 = load_view(self.shards.read(row), self.geometry)[0]
        pixels = torch.from_numpy(pixels_SS3).permute(2, 0, 1).float() / 255
        return pixels, self.weights[row], self.logits[row]


def train(directory: str, epochs: int = 1) -> Iterator[float]:
    """Yield the loss of each step. The student learns the teacher's softmax."""
    shards = open_shards(directory)
    student = build_net("resnet8", num_classes=len(shards.classes)).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for pixels, weights, teacher in DataLoader(ShardImages(shards), 32, shuffle=True):
            _, _, logits = student(pixels)
            values = F.cross_entropy(logits, teacher.softmax(1), reduction="none")
            loss = (values * weights).sum() / weights.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()


if __name__ == "__main__":
    for loss in train(sys.argv[1]):
        print(f"{loss:.4f}")
