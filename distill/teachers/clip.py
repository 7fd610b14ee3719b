"""A CLIP model as a zero-shot classifier: its text tower turns class names into a head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from indexes.models.net import Net
from indexes.models.teacher import TeacherError

PROMPTS = ("a photo of a {}.",)


def load_clip(net: Net, weights: Path, names: Sequence[str], prompts: Sequence[str]) -> None:
    """Load the image tower's weights into `net`, and build its head from the text tower.

    Each class name fills the `{}` of every prompt. The weight of a class is
    `exp(logit_scale) * m`, where m is the mean of its unit-length text embeddings, scaled to unit
    length again. The bias is the model's logit bias if it has one, else zero.

    Raises TeacherError if a prompt has no `{}`, or if the file is not the whole CLIP model.
    """
    import open_clip
    import torch

    name = net.builder.partition(":")[2]
    for prompt in prompts:
        if "{}" not in prompt:
            raise TeacherError(
                f"the prompt {prompt!r} has no {{}}: write {{}} where the class name goes"
            )
    try:
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
        open_clip.load_checkpoint(model, str(weights), weights_only=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:
        reason = "; ".join(str(error).strip().splitlines()[:4])[:400]
        raise TeacherError(
            f"{weights} cannot be read as the weights of {net.builder}: {reason}. The file must "
            "hold the whole CLIP model as plain tensors (.safetensors or a .pt state dict)"
        ) from error
    # str.format would misread other braces in a prompt or a class name.
    templates = [lambda text, prompt=prompt: prompt.replace("{}", text) for prompt in prompts]
    with torch.no_grad():
        text_DC = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
        weight_CD, bias_C = net.head
        weight_CD.copy_(model.logit_scale.exp() * text_DC.T)
        bias_C.fill_(0.0 if model.logit_bias is None else model.logit_bias.item())
    net.module.get_submodule("visual").load_state_dict(model.visual.state_dict())
