"""What runs of lmms-eval's tasks do of their own accord; lmms-eval itself is not needed here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import commands_in
from PIL import Image

from harness import doctor
from harness.integrations.lmms_eval import installed
from harness.integrations.lmms_eval.native import cluster_of, stopped, turn_of
from harness.integrations.lmms_eval.opening import Word
from harness.integrations.lmms_eval.tasks import rows_hash
from harness.integrations.lmms_metrics import ScoredTask, outcome_of
from harness.models.loading import OpenModel
from harness.records.errors import EnvironmentProblem, UsageError
from harness.submissions.rescoring import Judge

ROOT = Path(__file__).resolve().parents[2]


def image(colour: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, (colour, 0, 0))


def test_pictures_and_words_reach_the_template_in_their_order(reference_a: OpenModel, tmp_path: Path):
    image(3).save(tmp_path / "b.png")
    content = [
        {"type": "text", "text": "is "},
        {"type": "image", "url": image(1)},
        {"type": "text", "text": " like "},
        {"type": "image", "url": str(tmp_path / "b.png")},
        {"type": "text", "text": "?"},
    ]
    turn = turn_of(reference_a, [{"role": "user", "content": content}])
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"is {place} like {place}?" in turn.text
    assert [one.getpixel((0, 0))[0] for one in turn.images] == [1, 3]
    assert turn.inputs(reference_a).shape.n == 8


def test_a_turn_with_one_picture_first_is_the_harness_own(reference_a: OpenModel):
    content = [{"type": "image", "url": image(9)}, {"type": "text", "text": "how many stars?"}]
    theirs = turn_of(reference_a, [{"role": "user", "content": content}]).inputs(reference_a)
    own = reference_a.prepare([image(9)], "how many stars?")
    assert theirs.prompt.input_ids.equal(own.prompt.input_ids) and theirs.pixels.equal(own.pixels)


def test_video_is_refused(reference_a: OpenModel):
    with pytest.raises(UsageError, match="shows video; pruning takes images"):
        turn_of(reference_a, [{"role": "user", "content": [{"type": "video", "url": "x.mp4"}]}])


@pytest.mark.parametrize(
    ("until", "left"),
    [(None, "yes.\n\nno"), (["\n\n"], "yes.\n\nno"), ("no", "yes."), (["\n\n", "."], "yes"), ([""], "yes.\n\nno")],
)
def test_stop_strings_cut_the_answer_but_for_the_one_that_nobody_asked_for(until, left: str):
    assert stopped(" yes.\n\nno ", until) == left


def test_questions_about_one_picture_are_one_cluster():
    one, other = cluster_of({"image": image(1)}, "a"), cluster_of({"image": image(2)}, "b")
    assert one == cluster_of({"id": 5, "images": [image(1), image(2)]}, "c") and one != other
    assert cluster_of({"question": "no picture"}, "test:3") == "test:3"
    assert cluster_of({"image": image(1, (32, 128))}, "a") != one  # the same bytes in another shape


def test_rows_are_told_apart_by_content_and_number():
    rows = [{"question": "a", "image": {"bytes": b"x", "path": None}}, {"question": "b", "image": None}]
    assert rows_hash(rows, 2) == rows_hash(list(rows), 2) != rows_hash(rows, 1)
    assert rows_hash([{**rows[0], "image": {"bytes": b"y", "path": None}}, rows[1]], 2) != rows_hash(rows, 2)


def results(metrics: dict[str, float], rows: list[dict], listed: tuple[dict, ...] = ()) -> dict:
    config = {"test_split": "test", "metric_list": list(listed)}
    return {"results": {"t": {"alias": "t", **metrics}}, "samples": {"t": rows}, "configs": {"t": config}}


def test_the_first_filter_whose_metric_is_a_mean_gives_the_scores():
    rows = [
        {"doc_id": n, "exact_match": value} for values in ((0.0, 0.0), (1.0, 0.0)) for n, value in enumerate(values)
    ]
    found = outcome_of(results({"exact_match,strict": 0.5, "exact_match,loose": 0.5}, rows), "t")
    assert found.scores == {"test:0": 1.0, "test:1": 0.0}  # of the strict ones 0.5 is no mean
    assert found.metrics == {"exact_match,strict": 0.5, "exact_match,loose": 0.5}


def test_a_task_without_a_mean_has_metrics_alone():
    rows = [{"doc_id": n, "pope_f1_score": {"score": 1.0}} for n in range(2)]
    assert outcome_of(results({"pope_f1_score,none": 1.0, "n,none": "N/A"}, rows), "t") == ScoredTask(
        {"pope_f1_score": 1.0}, {}
    )


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("lmms:pope", Word("", "", "pope", "")),
        ("lmms:pope@0.7.3", Word("", "", "pope", "")),
        ("lmms:./mine/pope_local:plm", Word("./mine", "", "pope_local", "plm")),
        ("lmms:/data/mine/both#two:plm", Word("/data/mine", "both", "two", "plm")),
    ],
)
def test_a_word_names_a_task_its_folder_its_group_and_whose_prompts(words: str, meant: Word):
    assert Word.parse(words) == meant and Word.parse(str(meant)) == meant


def test_a_task_of_another_version_is_refused():
    with pytest.raises(UsageError, match=r"lmms:pope was asked of lmms-eval 0\.6\.0, here is 0\.7\.3"):
        Word.parse("lmms:pope@0.6.0")


def test_a_submitted_run_of_a_task_is_not_judged_again_and_says_so():
    assert "lmms-eval does that" in (Judge().note("lmms:pope@0.7.3") or "")
    spec = json.loads((ROOT / "harness/submissions/submission.schema.json").read_text())["properties"]["spec"]
    names, backends = (spec["properties"][key]["pattern"] for key in ("benchmark", "image_backend"))
    assert all(re.search(names, word) for word in ("pope", "lmms:pope@0.7.3", "lmms:pope:plm@0.7.3"))
    assert not any(re.search(names, word) for word in ("../x", "lmms:", "other:pope"))
    assert re.search(backends, "lmms-eval:llava_hf") and not re.search(backends, "lmms-eval:")


def test_without_lmms_eval_the_command_names_the_lines_that_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(installed, "absent", lambda: ["lmms_eval", "loguru"])
    said = commands_in(tmp_path, monkeypatch, capsys)("run", "--benchmark", "lmms:pope", "--method", "fastv")
    assert said.code == 3
    assert "needs lmms_eval, loguru; in a checkout: pip install -c constraints-lmms.txt --no-deps" in said.complaint
    monkeypatch.setattr(installed, "found_version", lambda: None)
    finding = doctor.lmms_eval()
    assert (finding.state, finding.advice) == ("missing", " && ".join(installed.LINES))
    assert "not here: lmms_eval, loguru" in finding.found


def test_a_class_of_theirs_is_for_their_tasks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    harness = commands_in(tmp_path, monkeypatch, capsys)
    said = harness("run", "--method", "fastv", "--image-backend", "lmms-eval:llava_hf")
    assert said.code == 2 and "answers its own tasks alone, lmms:TASK, got the benchmark reference" in said.complaint
    assert harness("run", "--method", "fastv", "--image-backend", "pil:llava_hf").code == 2


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installed, "absent", lambda: [])
    monkeypatch.setattr(installed, "found_version", lambda: "0.6.0")
    with pytest.raises(EnvironmentProblem, match=r"proven on lmms-eval 0\.7\.3, here is 0\.6\.0"):
        installed.check_installed()
    assert doctor.lmms_eval().state == "missing"


def test_the_documented_lines_are_those_that_are_told_and_pinned():
    documented = (ROOT / "docs/lmms.md").read_text()
    assert all(line in documented for line in installed.LINES)
    assert f"lmms_eval=={installed.VERSION}" in (ROOT / "constraints-lmms.txt").read_text()
    made = (ROOT / "Makefile").read_text()
    assert all(line.removeprefix("pip install -c constraints-lmms.txt ") in made for line in installed.LINES)
