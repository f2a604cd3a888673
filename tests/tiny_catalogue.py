"""A catalogue entry of a tiny Qwen3-VL: real ids, processor and code paths, few parameters."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from harness.models.catalogue import CatalogueEntry, named

TINY_TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4}
TINY_VISION = {"depth": 8, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}


def tiny_entry(name: str = "qwen3-vl-tiny") -> CatalogueEntry:
    published = named("qwen3-vl-2b")
    config = copy.deepcopy(dict(published.config))
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config["text_config"] |= {**TINY_TEXT, "num_key_value_heads": 2, "head_dim": 16, "rope_scaling": rope}
    config["vision_config"] |= {**TINY_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [1, 3, 5]}
    images = {**published.images, "min_pixels": 32 * 32}
    return CatalogueEntry(name, published.hub_id, published.licence, 0, config, images)


def write_entry(folder: Path, entry: CatalogueEntry) -> None:
    """As harness/models/configs holds it."""
    fields = {key: value for key, value in vars(entry).items() if key != "name"}
    (folder / f"{entry.name}.json").write_text(json.dumps(fields))
