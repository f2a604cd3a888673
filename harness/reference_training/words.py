"""The closed vocabulary of the reference suite: shapes, colours, families, and how a question is put.

Colours are sRGB centres; every drawn object moves each channel by up to `COLOUR_JITTER`.
"""

SHAPES = {
    "circle": "⬤",
    "square": "■",
    "triangle": "▲",
    "star": "★",
    "heart": "♥",
    "cross": "✚",
    "cloud": "☁",
    "umbrella": "☂",
    "plane": "✈",
    "flower": "✿",
    "arrow": "➡",
    "sun": "☀",
}
SHAPE_NAMES = tuple(SHAPES)
PLURALS = {name: "crosses" if name == "cross" else name + "s" for name in SHAPE_NAMES}

COLOURS = {
    "red": (215, 30, 35),
    "orange": (245, 135, 15),
    "yellow": (245, 218, 40),
    "green": (35, 155, 55),
    "cyan": (60, 205, 220),
    "blue": (30, 65, 205),
    "purple": (125, 45, 165),
    "pink": (248, 135, 190),
}
COLOUR_NAMES = tuple(COLOURS)
COLOUR_JITTER = 14

CARDS = ("white", "black")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
FAMILIES = ("read", "exist", "color", "count", "where", "digit")


def question(family: str, subject: str) -> str:
    """The question of `family` about `subject` (a colour, a shape, "colour shape" or a card)."""
    match family:
        case "read":
            return f"number on the {subject} sign?"
        case "exist":
            return f"is there a {subject}?"
        case "color":
            return f"color of the {subject}?"
        case "count":
            return f"how many {PLURALS[subject]}?"
        case "where":
            return f"where is the {subject}?"
        case "digit":
            return f"digit on the {subject} card?"
    raise ValueError(f"unknown family {family!r}; the families are {', '.join(FAMILIES)}")
