"""What a chat template puts around the user's text, so that a question can be told from it in token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PROBES = ("Red.", "7 of them?")  # texts that share no token at either end


@dataclass(frozen=True)
class Turn:
    """Token ids behind the image before the user's text, and those behind the text ("ASSISTANT:")."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def question(self, ids: Sequence[int], image_start: int, image_end: int, stops: Sequence[int]) -> list[int]:
        """The user's text behind the images, which take up ids[image_start:image_end].

        It ends at the template's words or, where these are not known, at the first of `stops`. Without text behind
        the images, what stands before them; without that, the last token.
        """
        behind = list(ids[image_end:])
        end = _first(behind, self.after) if self.after else None
        if end is None:
            end = next((place for place, token in enumerate(behind) if token in stops), len(behind))
        start = len(self.before) if tuple(behind[: len(self.before)]) == self.before else 0
        before = [token for token in ids[:image_start] if token not in stops]
        return behind[start:end] or before or list(ids[-1:])


def turn_of(processor: Any) -> Turn:
    """What the processor's template says, found by filling it in twice. Nothing where it has no template."""
    if not getattr(processor, "chat_template", None):
        return Turn()
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    one, other = (_behind_image(processor, image, probe) for probe in PROBES)
    return Turn(_common(one, other), _common(one[::-1], other[::-1])[::-1])


def _behind_image(processor: Any, image: int, text: str) -> list[int]:
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    ids = processor.tokenizer(prompt)["input_ids"]
    return ids[ids.index(image) + 1 :]


def _common(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """The beginning that two sequences share."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return tuple(one[:length])


def _first(ids: list[int], wanted: tuple[int, ...]) -> int | None:
    """Where `wanted` begins in `ids`."""
    places = range(len(ids) - len(wanted) + 1)
    return next((place for place in places if tuple(ids[place : place + len(wanted)]) == wanted), None)
