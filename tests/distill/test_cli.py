"""The commands end to end, and their errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import distill.cli
from distill.methods import winnow
from distill.train import StudentRun
from indexes import artifact
from indexes.models.net import students
from indexes.models.teacher import WEIGHTS, load_teacher
from tests.support import distillation

pytestmark = pytest.mark.usefixtures("one_thread")
FLAGS = {
    "distill": "shards teacher student method preset set recipe mix mix-frac "
    "epochs steps batch-size lr optimizer views targets color-jitter compile accumulate ema seed "
    "eval out memory-gib workers fresh runs device trust-builder json quiet verbose log-format",
    "targets": "shards teacher views keep top color-jitter crop crop-area compile seed "
    "verify runs device trust-builder json quiet verbose log-format",
    "evaluate": "teacher out runs device trust-builder json quiet verbose log-format",
    "train-teacher": "classes out builder size epochs batch-size lr seed device json quiet "
    "verbose log-format",
    "import-teacher": "builder weights classes mean std input-size crop-frac interpolation "
    "args prompt accuracy trust-builder json quiet verbose log-format",
    "students": "json quiet verbose log-format",
    "methods": "json quiet verbose log-format",
    "export": "out format int8 images runs trust-builder json quiet verbose log-format",
}


REFUSED = "labeled by another teacher", "no such directory"


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(distill.cli.app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs as `winnow select` leaves them, and a labeled set."""
    root = tmp_path_factory.mktemp("cli")
    teacher = distillation.make_teacher(root / "runs" / "teachers" / "mentor")
    distillation.make_teacher(root / "runs" / "teachers" / "other", seed=8)
    distillation.make_shards(root / "runs" / "shards" / "demo", teacher)
    last_shards = {"shards": str(root / "runs" / "shards" / "demo")}
    artifact.write_json(root / "runs" / "last-shards.json", last_shards)
    for number in range(12):
        folder = root / "val" / distillation.CLASSES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(distillation.draw_image(number))
    return root / "runs"


def test_flags_are_frozen() -> None:
    import typer.main

    commands = typer.main.get_command(distill.cli.app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        flags = [p.opts[0] for p in command.params if p.opts[0].startswith("--")]
        assert flags == [f"--{flag}" for flag in FLAGS[name].split()], name


def test_several_students_are_distilled_and_evaluated(runs: Path) -> None:
    words = ["distill", "--runs", runs, "--student", "resnet8,resnet14", "--steps", 3,
             "--batch-size", 16, "--set", "temperature=2", "--seed", 4, "--device", "cpu",
             "--eval", runs.parent / "val"]  # fmt: skip
    code, output = call(*words)
    assert code == 0, output
    for name in ("resnet8", "resnet14"):
        directory = runs / "students" / f"demo-winnow-{name}-seed4"
        size = (directory / WEIGHTS).stat().st_size / 1e6
        assert f"{name}: trained, {size:.2f} MB, agrees" in output
        assert f"next: winnow export {directory}" in output
        result = json.loads((directory / "evaluation.json").read_text())
        assert result["num_images"] == 12
        record = artifact.read_card(directory, "teacher")["record"]["inputs"]
        assert record["method"] == "winnow"
        assert record["config"] == vars(winnow.Config(temperature=2.0))
        assert record["recipe"]["lr"] == pytest.approx(0.1 / 8)
    (page,) = (runs / "evaluations").glob("val-*/report.html")
    assert f"report in {page}" in output
    assert "demo-winnow-resnet14-seed4" in page.read_text()
    code, output = call(*words)
    assert code == 0
    assert "resnet8: already finished" in output
    code, output = call("evaluate", "demo-winnow-resnet8-seed4", runs.parent / "val",
                        "--runs", runs, "--teacher", "mentor", "--device", "cpu")  # fmt: skip
    assert code == 0, output
    assert "12 images, top-1" in output
    assert "agreement with the teacher" in output
    names = [f"demo-winnow-{name}-seed4" for name in ("resnet14", "resnet8")]
    words = ["evaluate", *names, runs.parent / "val", "--runs", runs, "--device", "cpu"]
    code, output = call(*words, "--out", runs / "compared")
    assert code == 0, output
    assert output.index(names[1]) < output.index(names[0]), "the cheaper student first"
    table = json.loads((runs / "compared" / "table.json").read_text())
    assert [student["name"] for student in table["students"]] == names[::-1]
    code, output = call("evaluate", names[0], "demo-winow-resnet8-seed4", *words[3:])
    assert code == 1
    assert f"Did you mean '{names[1]}'?" in output


def test_a_preset_and_a_second_shard_set_work(runs: Path) -> None:
    teacher = load_teacher(runs / "teachers" / "mentor")
    distillation.make_shards(runs / "shards" / "synthetic", teacher, 20)
    words = ["distill", "--runs", runs, "--student", "resnet8", "--steps", 2, "--batch-size", 16,
             "--method", "kd3", "--preset", "faithful", "--set", "oversample=1",
             "--mix", runs / "shards" / "synthetic", "--device", "cpu",
             "--eval", runs.parent / "val"]  # fmt: skip
    code, output = call(*words)
    assert code == 0, output
    assert "12" in output
    directory = runs / "students" / "demo-kd3-faithful-mix-resnet8"
    record = artifact.read_card(directory, "teacher")["record"]["inputs"]
    assert (record["config"]["align"], record["config"]["oversample"]) == (1.0, 1)
    assert (record["recipe"]["lr"], record["recipe"]["steps"]) == (0.05, 2)
    assert record["recipe"]["drop_at"] == [0.625, 0.75, 0.875]
    assert record["mix_frac"] == 0.5
    code, output = call("evaluate", directory.name, runs.parent / "val", "--runs", runs,
                        "--teacher", "mentor", "--device", "cpu")  # fmt: skip
    assert code == 0, output
    assert "reused:" in artifact.read_card(directory, "teacher")["builder"]


def test_settings_of_the_training_reach_students_and_targets(runs: Path, tmp_path: Path) -> None:
    settings = "crop=resized crop_area=0.08 weight_decay=0.0001 nesterov=no drop_at=0.5"
    common = ["--runs", runs, "--device", "cpu"]
    code, output = call("targets", *common, "--views", 2, "--crop", "resized", "--crop-area", 0.08)
    assert code == 0, output
    words = ["distill", *common, "--student", "resnet8", "--steps", 2, "--batch-size", 16]
    words += ["--method", "kd", "--out", tmp_path / "x"]
    code, output = call(*words, "--views", 2, "--recipe", settings)
    assert code == 0, output
    assert "reading the teacher's logits of 2 views" in output
    assert "teacher targets" not in output, "the targets of these crops were there"
    recipe = artifact.read_card(tmp_path / "x", "teacher")["record"]["inputs"]["recipe"]
    assert (recipe["crop"], recipe["crop_area"], recipe["drop_at"]) == ("resized", 0.08, [0.5])
    assert (recipe["weight_decay"], recipe["nesterov"]) == (0.0001, False)
    code, output = call(*words, "--views", 2)
    assert code == 3
    assert "recipe.crop was resized, is None" in output
    (directory,) = (
        path for path in (runs / "targets").iterdir()
        if artifact.read_card(path, "targets")["key"].get("crop") == "resized"
    )  # fmt: skip
    words[-1] = tmp_path / "y"
    code, output = call(*words, "--targets", directory, "--recipe", "crop=zeros")
    assert code == 3
    assert "holds targets for another crop of views (resized, not zeros)" in output
    code, output = call(*words, "--targets", directory)
    assert code == 0, output
    recipe = artifact.read_card(tmp_path / "y", "teacher")["record"]["inputs"]["recipe"]
    assert (recipe["crop"], recipe["crop_area"]) == ("resized", 0.08)


def test_a_preset_trains_its_own_student_unless_another_is_given(runs: Path) -> None:
    words = ["distill", "--runs", runs, "--steps", 1, "--batch-size", 4, "--device", "cpu",
             "--method", "kd", "--preset", "cifar10_wrn40_2_wrn16_1"]  # fmt: skip
    both = "wrn_16_1 resnet8"
    for student, given in (("wrn_16_1", []), ("resnet8", ["--student", both])):
        code, output = call(*words, *given)
        assert code == 0, output
        assert (runs / "students" / f"demo-kd-cifar10_wrn40_2_wrn16_1-{student}").is_dir()
        assert ("and the student is resnet8" in output) == bool(given)
        assert "wrn_16_1 (91.12), but here the teacher is resnet8 " in " ".join(output.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "lr=3"], "give --lr instead of lr"),
        (["--recipe", "crops=pad"], "Did you mean 'crop'?"),
        (["--method", "kd3", "--preset", "faithfull"], "Did you mean 'faithful'?"),
        (
            ["--method", "kd", "--preset", "faithful"],
            "kd has no preset 'faithful'. Available: cifar10_r34_r18",
        ),
        (["--method", "kd3", "--set", "oversample=0"], "oversample must be at least 1, not 0"),
        (["--method", "winnow", "--set", "factor=0"], "factor must be at least 1, not 0"),
        (["--mix", "nowhere"], "no such directory"),
        (["--student", "torchvision:vit_b_32"], "does not take images of 32 pixels"),
        (["--student", "timm:vit_tiny_patch16_224:nonsense=1"], "cannot be built"),
        (["--method", "odds"], "Did you mean 'odsd'?"),
        (["--set", "temprature=3"], "Did you mean 'temperature'?"),
        (["--student", "resnet8x5"], "resnet8x4"),
        (["--teacher", "other"], "labeled by another teacher"),
        (["--teacher", "nobody"], "holds: mentor, other"),
        (["--shards", "nowhere"], "no such directory"),
        (["--eval", "nowhere"], "nowhere"),
        (["--lr", "-1"], "lr above 0"),
        (["--set", "temperature=-1", "--steps", "1"], "temperature must be above 0"),
    ],
)
def test_wrong_options_give_one_line(
    runs: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    code, output = call("distill", "--runs", runs, "--out", tmp_path / "x", "--device", "cpu",
                        "--student", "resnet8", *words)  # fmt: skip
    assert code == (3 if any(word in message for word in REFUSED) else 1), output
    assert "error: " in output
    assert message in output


@pytest.mark.parametrize(
    "student",
    ["timm:mobilnetv3_small_050", "torchvision:vit_b_32", "timm:resnet18:nonsense=1"],
)
def test_a_wrong_student_leaves_no_directory(runs: Path, tmp_path: Path, student: str) -> None:
    code, _ = call("distill", "--runs", runs, "--out", tmp_path / "x", "--device", "cpu",
                   "--student", "resnet8", "--student", student)  # fmt: skip
    assert code == 1
    assert not (tmp_path / "x").exists()


def test_json_output_is_one_document(runs: Path, tmp_path: Path) -> None:
    words = ["--runs", runs, "--device", "cpu", "--json"]
    options = ["--student", "resnet8", "--method", "kd", "--steps", 2, "--batch-size", 16]
    given = ["distill", *words, *options, "--out", tmp_path / "student"]
    result = CliRunner().invoke(distill.cli.app, list(map(str, given)))
    assert result.exit_code == 0, result.output
    (student,) = json.loads(result.stdout)["students"]
    assert (student["student"], student["state"]) == ("resnet8", "finished")
    result = CliRunner().invoke(distill.cli.app, ["methods", "--json"])
    assert {"kd", "winnow"} <= {entry["name"] for entry in json.loads(result.stdout)}


def test_the_next_commands_name_the_trained_students() -> None:
    runs = [
        StudentRun("a", Path("s/a"), "finished", 0.5),
        StudentRun("b", Path("s/b"), "already", 1),
    ]
    failed = StudentRun("c", Path("s/c"), "diverged", None)
    export = ["next: winnow export s/a", "next: winnow export s/b"]
    lines = list(distill.cli._next_commands([*runs, failed], is_evaluated=False))
    assert lines == ["next: winnow evaluate s/a s/b LABELED", *export]
    assert list(distill.cli._next_commands([*runs, failed], is_evaluated=True)) == export
    assert not list(distill.cli._next_commands([failed], is_evaluated=False))


def test_missing_shards_are_explained(tmp_path: Path) -> None:
    code, output = call("distill", "--runs", tmp_path)
    assert code == 1
    assert "run `winnow select` first" in output


def test_students_and_methods_are_listed() -> None:
    code, output = call("students")
    assert code == 0
    assert all(name in output for name in students())
    assert "timm:mobilenetv3_small_050" in call("students", "mobilenetv3_small")[1]
    assert call("students", "no such net")[0] == 1
    code, output = call("methods")
    assert code == 0
    assert "kd: Plain distillation" in output
    assert "winnow methods NAME" in output


def test_a_method_is_described() -> None:
    code, output = call("methods", "kd3")
    assert code == 0
    for text in (
        "Paper: Knowledge Distillation between Different Distributions",
        "L = align mean w",
        "Cost: ",
        "tau=0.95 Confidence threshold",
        "240 epochs, batch 1,024, lr=0.05",
        "align=1.0",
        "cifar10_r34_r18 CIFAR-10, resnet34 (95.70) -> resnet18 (95.20); expected 95.21 % top-1",
        "cifar10_vgg11_r18 CIFAR-10, vgg11 (92.25) -> resnet18 (95.20); not measured",
        "faithful any teacher and student",
    ):
        assert text in output, text
    code, output = call("methods", "kd33")
    assert code == 1
    assert "Did you mean 'kd3'?" in output


def test_a_method_of_the_user_is_described(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('"""Mine: a loss of my own."""\n')
    code, output = call("methods", file)
    assert code == 0
    assert "mine: Mine: a loss of my own." in output
    assert "It takes no settings." in output
    assert "It has no presets." in output


def test_a_described_method_is_json() -> None:
    result = CliRunner().invoke(distill.cli.app, ["methods", "dfnd", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    preset = document["presets"]["cifar10_r34_r18"]
    assert (preset["expected"], preset["pair"]["teacher"]) == (94.02, "resnet34")
    assert preset["pair"]["data"]["name"] == "CIFAR-10"
    assert "SOURCE" in preset["source"]
    assert preset["recipe"]["steps"] == 77_352
