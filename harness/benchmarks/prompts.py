"""The words around a question, byte for byte as the public tools put them."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_CHINESE = "请直接使用所提供的选项字母作为答案回答。"
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
BOX = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. "
    "Please provide the bounding box coordinate of the region this sentence describes: "
)


def options(choices: Sequence[str]) -> str:
    """One line an option: "A. red" and so on."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))


def asked(*lines: str) -> str:
    """The lines that are not empty, one below the other."""
    return "\n".join(line for line in lines if line)


def vlmevalkit(question: str, choices: Sequence[str], hint: str = "") -> str:
    """VLMEvalKit's multiple-choice prompt; its last line ends with a blank. Without options, the question alone."""
    hinted = f"Hint: {hint}\n" if hint else ""
    if not choices:
        return f"{hinted}Question: {question}\n"
    return (
        f"{hinted}Question: {question}\nOptions:\n{options(choices)}\n"
        "Please select the correct answer from the options above. \n"
    )


def present(cell: object) -> str:
    """A cell's text; "" where it says that it has none: empty, "nan", or "N/A"."""
    text = "" if cell is None else str(cell).strip()
    return "" if text.lower() in ("nan", "n/a", "none") else text
