"""The map of a net before its last reduction of size, which a student can learn beside the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from indexes.models.net import Net

NUM_PROBED = 2
DEEPEST = 1  # dots in the name of a stage: maps of attention, deeper inside, are no stages


class StageMap:
    """Keeps the map [B, M, h, w] of one module of a net at each of its forward passes."""

    def __init__(self, net: Net, name: str) -> None:
        """`name` is that of the module, as `stage_name` finds it."""
        self.name = name
        self._map: Tensor | None = None
        self._hook = net.module.get_submodule(name).register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self._map = output

    def take(self) -> Tensor:
        """Return the map [B, M, h, w] of the last forward pass, and keep it no longer."""
        assert self._map is not None
        kept, self._map = self._map, None
        return kept

    def stop(self) -> None:
        """Keep no maps from now on, so that none stays in memory."""
        self._hook.remove()


def stage_name(net: Net, size: int) -> str:
    """Return the name of the module whose output is the last map larger than the final map.

    Images have `size` pixels a side. Among several such modules, it is the outermost one that runs
    last, as in "layer3" of a ResNet with four stages. Raises NetError if the net has no such map,
    as a ViT.

    Example:
        >>> from indexes.models.net import build_net
        >>> stage_name(build_net("resnet8", num_classes=10), 32)
        'layer2'
    """
    import torch

    from indexes.models.builders import NetError

    maps: list[tuple[int, int, str]] = []  # side, minus depth and name, in the order of the pass
    handles = []
    for name, layer in net.module.named_modules():
        if name and name.count(".") <= DEEPEST:

            def note(
                layer: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name
            ) -> None:
                if isinstance(output, torch.Tensor) and output.ndim == 4:
                    height, width = output.shape[2:]
                    if height == width:
                        maps.append((height, -name.count("."), name))

            handles.append(layer.register_forward_hook(note))
    was_training = net.module.training
    device = next(net.parameters()).device
    try:
        net.eval()
        with torch.no_grad():
            final, _, _ = net(torch.zeros(NUM_PROBED, 3, size, size, device=device))
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    larger = [entry for entry in maps if entry[0] > final.shape[2]]
    if not larger:
        raise NetError(
            f"{net.builder} has no map that is larger than its last one: leave the stage out, as "
            "with --set stage=0"
        )
    side = min(entry[0] for entry in larger)
    depth = max(entry[1] for entry in larger if entry[0] == side)
    return [name for s, d, name in larger if (s, d) == (side, depth)][-1]
