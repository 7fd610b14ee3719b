"""The principal subspace of the teacher's features, estimated on the images of the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PrincipalSubspace(nn.Module):
    """The first R principal directions of features [B, D], of which a stream of batches is seen.

    Mean and covariance are those of all images seen, with their weights. The basis is updated by
    one step of orthogonal iteration per batch (Golub & Van Loan, Matrix Computations, section
    8.2: SOURCE), so that it costs one product and nothing waits for the device. OURS. All of it is
    part of a checkpoint.
    """

    def __init__(self, num_features: int, rank: int) -> None:
        super().__init__()
        self.seen: Tensor
        self.mean_D: Tensor
        self.covariance_DD: Tensor
        self.basis_DR: Tensor
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("mean_D", torch.zeros(num_features))
        self.register_buffer("covariance_DD", torch.zeros(num_features, num_features))
        self.register_buffer("basis_DR", torch.linalg.qr(torch.randn(num_features, rank)).Q)

    @torch.no_grad()
    def update(self, features_BD: Tensor, weights_B: Tensor) -> None:
        """Add a batch of features [B, D] with weights [B] to the estimate. OURS."""
        with torch.autocast(features_BD.device.type, enabled=False):
            features, weights = features_BD.float(), weights_B.float()
            total = weights.sum()
            share = weights / total.clamp_min(1e-12)
            mean = share @ features
            centered = features - mean
            covariance = centered.T @ (share[:, None] * centered)
            # Chan et al.: the moments of a union of two sets from the moments of each.
            rate = total / (self.seen + total).clamp_min(1e-12)
            gap = mean - self.mean_D
            self.covariance_DD.lerp_(covariance, rate).add_(rate * (1 - rate) * gap.outer(gap))
            self.mean_D.add_(rate * gap)
            self.seen.add_(total)
            # The identity keeps directions apart in which the features never varied.
            scale = self.covariance_DD.diagonal().mean().clamp_min(1e-12)
            moved = self.covariance_DD @ self.basis_DR + 1e-3 * scale * self.basis_DR
            # The signs of the basis before: those of several processes can then be averaged.
            basis_DR, triangle_RR = torch.linalg.qr(moved / scale)
            self.basis_DR.copy_(basis_DR * torch.where(triangle_RR.diagonal() < 0, -1.0, 1.0))

    def centered(self, features_BD: Tensor) -> Tensor:
        """Return the features [B, D] less the mean of those seen, float32. OURS."""
        return features_BD.float() - self.mean_D
