"""Training batches: scenes turned into patches, packed questions and dense labels. A batch follows from its seed
alone."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.reference_training.architecture import PATCH_PX, UNIT_PX
from harness.reference_training.asking import Asked, ask
from harness.reference_training.labels import merge_order, patch_labels, target_units, unit_labels
from harness.reference_training.materials import Materials
from harness.reference_training.scenes import Scene, make_scene
from harness.reference_training.sprites import SpriteBank
from harness.reference_training.vocabulary import SPECIALS
from harness.reference_training.words import FAMILIES, PLURALS, SHAPE_NAMES

QUESTIONS = 8
LENGTH = 10
IGNORED = -100
NO_SHAPE = len(SHAPE_NAMES)
CROWDED_MIX = {"read": 1.0, "exist": 0.12, "color": 0.14, "where": 0.1}
MODERATE_MIX = {"exist": 0.22, "where": 0.22, "count": 0.2, "color": 0.24, "digit": 0.08, "read": 0.04}
END, _START = SPECIALS.index("<|im_end|>"), SPECIALS.index("<|im_start|>")


@dataclass(frozen=True)
class TrainingBatch:
    """patches (B, N, 768); questions, targets (B, Q, LENGTH), targets IGNORED but at answers; families (B, Q), -1 =
    none; patch labels (B, N) and unit labels (B, n) by name."""

    patches: Tensor
    questions: Tensor
    targets: Tensor
    families: Tensor
    aims: Tensor
    words: Tensor
    patch: dict[str, Tensor]
    unit: dict[str, Tensor]


class Encoder:
    """Token ids of questions and answers, remembered."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer, self._known = tokenizer, {}

    def __call__(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._tokenizer(text)["input_ids"]
        return self._known[text]

    def block(self, asked: Asked) -> tuple[list[int], list[int]]:
        """Inputs and next-token targets of one question, each LENGTH long; padded with the end mark."""
        prompt = [*self(asked.question), END, _START]
        answer = [*self(asked.answer), END]
        whole = prompt + answer
        if len(whole) > LENGTH + 1:
            raise ValueError(
                f"{asked.question!r} + {asked.answer!r} take {len(whole)} tokens; LENGTH allows {LENGTH + 1}"
            )
        targets = [IGNORED] * (len(prompt) - 1) + answer
        return whole[:-1] + [END] * (LENGTH + 1 - len(whole)), targets + [IGNORED] * (LENGTH - len(targets))


def patches_of(image: np.ndarray) -> np.ndarray:
    """uint8 (side, side, 3) -> float32 (N, 768) in merge-unit order, values in -1..1, as the image processor lays
    them out."""
    side = image.shape[0] // PATCH_PX
    cells = image.reshape(side, PATCH_PX, side, PATCH_PX, 3).transpose(0, 2, 4, 1, 3).reshape(side, side, -1)
    return merge_order(cells).astype(np.float32) / 127.5 - 1.0


def questions_for(scene: Scene, rng: np.random.Generator, most: int = QUESTIONS) -> list[Asked]:
    """Up to `most` different questions about the scene, in the training mix of its kind."""
    mix = CROWDED_MIX if scene.crowded else MODERATE_MIX
    families, weights = list(mix), np.array(list(mix.values()))
    draws = rng.choice(len(families), size=3 * most, p=weights / weights.sum())
    found: dict[str, Asked] = {}
    for draw in draws:
        asked = ask(scene, families[draw], rng)
        if asked is not None:
            found.setdefault(asked.question, asked)
        if len(found) == most:
            break
    return list(found.values())


def shape_word(question: str) -> int:
    """The index of the shape that ends the question, in either number; NO_SHAPE for questions about signs and cards."""
    last = question.removesuffix("?").split()[-1]
    for index, name in enumerate(SHAPE_NAMES):
        if last in (name, PLURALS[name]):
            return index
    return NO_SHAPE


def make_batch(
    materials: Materials, bank: SpriteBank, encode: Encoder, rng: np.random.Generator, side: int, crowded: list[bool]
) -> TrainingBatch:
    """One batch of `side`-pixel scenes, one per entry of `crowded`; a fifth of them pass through JPEG."""
    patches, questions, targets, families, aims, words, patch, unit = [], [], [], [], [], [], [], []
    for wanted in crowded:
        scene = make_scene(materials, bank, rng, side, wanted)
        asked = questions_for(scene, rng)
        blocks = [encode.block(one) for one in asked] + [([END] * LENGTH, [IGNORED] * LENGTH)] * (
            QUESTIONS - len(asked)
        )
        image = _jpeg(scene.image, int(rng.integers(80, 96))) if rng.random() < 0.2 else scene.image
        patches.append(patches_of(image))
        questions.append([inputs for inputs, _ in blocks])
        targets.append([outputs for _, outputs in blocks])
        families.append([FAMILIES.index(one.family) for one in asked] + [-1] * (QUESTIONS - len(asked)))
        nothing = [np.zeros((side // UNIT_PX) ** 2, dtype=bool)] * (QUESTIONS - len(asked))
        aims.append(np.stack([target_units(one.boxes, side) for one in asked] + nothing))
        words.append([shape_word(one.question) for one in asked] + [NO_SHAPE] * (QUESTIONS - len(asked)))
        patch.append(patch_labels(scene))
        unit.append(unit_labels(scene))
    return TrainingBatch(
        torch.from_numpy(np.stack(patches)),
        torch.tensor(questions),
        torch.tensor(targets),
        torch.tensor(families),
        torch.from_numpy(np.stack(aims)),
        torch.tensor(words),
        {name: torch.from_numpy(np.stack([labels[name] for labels in patch])) for name in patch[0]},
        {name: torch.from_numpy(np.stack([labels[name] for labels in unit])) for name in unit[0]},
    )


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
