"""What `winnow students` and `winnow methods` print."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from indexes import plugins
from indexes.models.net import students


def student_lines(search: str | None) -> Iterator[str]:
    """Our nets by family; with a word, the names of all libraries that contain it."""
    ours = students()
    if search is None:
        for family in dict.fromkeys(ours.values()):
            yield family
            yield "  " + ", ".join(name for name in ours if ours[name] == family)
        yield "timm:NAME and torchvision:NAME too: `winnow students mobilenet` searches them"
        return
    import timm
    from torchvision import models

    found = [name for name in ours if search in name]
    found += [f"timm:{name}" for name in timm.list_models() if search in name]
    found += [f"torchvision:{n}" for n in models.list_models(module=models) if search in n]
    if not found:
        raise ValueError(f"no net has {search!r} in its name")
    yield from found


def method_lines() -> Iterator[str]:
    """Each method with its settings, read from the files without running them."""
    for name in plugins.names("distill.methods"):
        tree = plugins.source("distill.methods", name)
        yield f"{name}: {plugins.first_line(tree)}"
        config = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config")
        for field, note in zip(config.body, [*config.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and field.value is not None:
                text = ast.unparse(field.target), ast.unparse(field.value)
                said = ""
                if isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
                    said = " ".join(str(note.value.value).split())
                yield f"  {text[0]}={text[1]}  {said}"
        known = [ast.literal_eval(key) for key in _preset_keys(tree)]
        if known:
            yield f"  --preset {', '.join(known)}"


def _preset_keys(tree: ast.Module) -> list[ast.expr]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PRESETS":
            assert isinstance(node.value, ast.Dict)
            return [key for key in node.value.keys if key is not None]
    return []
