"""Make the frozen suite: `python -m harness.reference_training.make_suite --seed 0 --out DIR`.

The same seed gives the same bytes.

Crowded images carry the reading questions, moderate ones the rest; several questions share an image, which is also
the cluster for statistics. Images are lossy WebP, whose decoding is exact by its standard, so that every reader sees
the same pixels; bytes are the same wherever Pillow brings the same libwebp (the checksums say). Written:
images/NNNN.webp, questions.jsonl, SHA256SUMS.
"""

import argparse
import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from harness.reference.suite import CHECKSUMS, Question
from harness.reference_training.architecture import IMAGE_PX
from harness.reference_training.asking import Asked, ask
from harness.reference_training.materials import Materials, load_materials
from harness.reference_training.scenes import Scene, make_scene
from harness.reference_training.sprites import SpriteBank
from harness.reference_training.words import FAMILIES

WEBP_QUALITY = 88
READ_EACH = 6
SHARES = {"read": 600, "exist": 410, "color": 355, "count": 360, "where": 300, "digit": 200}  # of a suite of 2,225
EACH = {"exist": 2, "color": 2, "count": 2, "where": 2, "digit": 2}  # most per moderate image
QUICK = 500


def make_suite(out: Path, seed: int, scale: float = 1.0) -> list[Question]:
    """Write the suite to `out`; `scale` shrinks every family's quota (tests make a small one). Returns its
    questions."""
    materials = load_materials("test")
    bank = SpriteBank(materials, np.random.default_rng([seed, 1]), variants=60, numbers_each=16)
    quotas = {family: round(share * scale) for family, share in SHARES.items()}
    (out / "images").mkdir(parents=True, exist_ok=True)
    questions: list[Question] = []
    left, index = dict(quotas), 0
    while any(left.values()):
        rng = np.random.default_rng([seed, 2, index])
        scene, asked = _asked_scene(materials, bank, left, rng)
        if asked:
            name = f"images/{len({q.image for q in questions}):04d}.webp"
            Image.fromarray(scene.image).save(out / name, "WEBP", quality=WEBP_QUALITY, method=6, use_sharp_yuv=True)
            for one in asked:
                left[one.family] -= 1
                questions.append(Question(f"{one.family}-{len(questions):04d}", name, *_plain(one)))
        index += 1
    questions = _with_majority(_with_quick(questions, round(QUICK * scale), np.random.default_rng([seed, 3])))
    lines = [json.dumps(asdict(one), separators=(",", ":")) for one in questions]
    (out / "questions.jsonl").write_text("\n".join(lines) + "\n")
    write_checksums(out)
    return questions


def write_checksums(folder: Path) -> None:
    """SHA256SUMS of questions and images, in sha256sum's format."""
    files = ["questions.jsonl", *sorted(f"images/{path.name}" for path in (folder / "images").iterdir())]
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in files]
    (folder / CHECKSUMS).write_text("\n".join(sums) + "\n")


def _plain(asked: Asked) -> tuple:
    return asked.family, asked.question, asked.answer, asked.boxes


def _asked_scene(
    materials: Materials, bank: SpriteBank, left: dict[str, int], rng: np.random.Generator
) -> tuple[Scene, list[Asked]]:
    """A scene of the kind that is needed, with at most what is left of every quota."""
    crowded = left["read"] > 0
    scene = make_scene(materials, bank, rng, IMAGE_PX, crowded)
    if crowded and not _fit_for_reading(scene):
        return scene, []
    found: dict[str, Asked] = {}
    for family, most in ({"read": READ_EACH} if crowded else EACH).items():
        wanted = min(most, left[family])
        for _ in range(12):
            if wanted == 0:
                break
            asked = ask(scene, family, rng)
            if asked is not None and asked.question not in found:
                found[asked.question] = asked
                wanted -= 1
    return scene, list(found.values())


def _fit_for_reading(scene: Scene) -> bool:
    """The crowded end of reading scenes, as laid out: eight signs, one of each colour, among 20-25 things.

    With fewer, a quarter of the tokens holds every sign, and a query-blind choice nearly ties the oracle.
    """
    signs = sum(thing.kind == "sign" for thing in scene.things)
    return signs == 8 and 20 <= len(scene.things) <= 25


def _with_quick(questions: list[Question], size: int, rng: np.random.Generator) -> list[Question]:
    """Mark `size` questions, families in their shares (largest remainders), at random inside each."""
    totals = Counter(one.family for one in questions)
    exact = {family: size * totals[family] / len(questions) for family in FAMILIES}
    take = {family: int(share) for family, share in exact.items()}
    for family in sorted(FAMILIES, key=lambda f: take[f] - exact[f])[: size - sum(take.values())]:
        take[family] += 1
    chosen: set[str] = set()
    for family in FAMILIES:
        ids = [one.id for one in questions if one.family == family]
        chosen.update(ids[i] for i in rng.choice(len(ids), take[family], replace=False))
    return [replace(one, quick=one.id in chosen) for one in questions]


def _with_majority(questions: list[Question]) -> list[Question]:
    counts = {family: Counter(one.answer for one in questions if one.family == family) for family in FAMILIES}
    best = {family: min(c, key=lambda answer: (-c[answer], answer)) for family, c in counts.items() if c}
    return [replace(one, majority=best[one.family]) for one in questions]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    questions = make_suite(asked.out, asked.seed)
    for family in FAMILIES:
        answers = Counter(one.answer for one in questions if one.family == family)
        answer, count = answers.most_common(1)[0]
        total = sum(answers.values())
        print(f"{family:7s} {total:5d} questions, majority answer {answer!r} {count / total:.3f}")


if __name__ == "__main__":
    main()
