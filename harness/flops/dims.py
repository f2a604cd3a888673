"""The sizes of a model that its cost depends on, read from its configuration alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelDims:
    """Sizes of a vision tower, its projector and its LLM, all in values (not bytes).

    vit_mlp_matrices, llm_mlp_matrices: 2, or 3 for a gated MLP. vit_prefix_tokens: tokens such as CLS that stand in
    front of each image in every block and are no patches. patch_values: inputs of the patch embedding.
    unit_patches: ViT patches behind one visual token; unit_pixel_values: their pixels x colours.
    projector_linears: (in, out) of each linear layer that one unit passes; projectors: how many such stacks run on
    every unit (the main one and one for each DeepStack tap).
    llm_query_width: heads x head size; llm_key_width: kv heads x head size, the width of the values too;
    llm_head_width: the head size.
    vit_window: units on each side of the windows that most ViT blocks attend within, 0 where images attend as a whole;
    vit_full_blocks: the blocks that attend to whole images all the same.
    """

    vit_layers: int
    vit_width: int
    vit_mlp_width: int
    vit_mlp_matrices: int
    vit_prefix_tokens: int
    patch_values: int
    unit_patches: int
    unit_pixel_values: int
    projector_linears: tuple[tuple[int, int], ...]
    projectors: int
    llm_layers: int
    llm_width: int
    llm_query_width: int
    llm_key_width: int
    llm_head_width: int
    llm_mlp_width: int
    llm_mlp_matrices: int
    vocabulary: int
    vit_window: int = 0
    vit_full_blocks: tuple[int, ...] = ()


def dims_of(config: Any) -> ModelDims:
    """The sizes in a transformers configuration. Raises ValueError for a family without an entry in this file."""
    family = config.model_type
    if family not in _FAMILIES:
        raise ValueError(f"no FLOPs formula for the family {family!r}; known: {', '.join(sorted(_FAMILIES))}")
    return _FAMILIES[family](config)


def _qwen3_vl(config: Any) -> ModelDims:
    vit, llm = config.vision_config, config.text_config
    unit_patches = vit.spatial_merge_size**2
    merged_width = vit.hidden_size * unit_patches
    return ModelDims(
        vit_layers=vit.depth,
        vit_width=vit.hidden_size,
        vit_mlp_width=vit.intermediate_size,
        vit_mlp_matrices=2,
        vit_prefix_tokens=0,
        patch_values=vit.in_channels * vit.temporal_patch_size * vit.patch_size**2,
        unit_patches=unit_patches,
        unit_pixel_values=vit.in_channels * (vit.patch_size * vit.spatial_merge_size) ** 2,
        projector_linears=((merged_width, merged_width), (merged_width, vit.out_hidden_size)),
        projectors=1 + len(vit.deepstack_visual_indexes),
        llm_layers=llm.num_hidden_layers,
        llm_width=llm.hidden_size,
        llm_query_width=llm.num_attention_heads * llm.head_dim,
        llm_key_width=llm.num_key_value_heads * llm.head_dim,
        llm_head_width=llm.head_dim,
        llm_mlp_width=llm.intermediate_size,
        llm_mlp_matrices=3,
        vocabulary=llm.vocab_size,
    )


def _qwen2_5_vl(config: Any) -> ModelDims:
    vit, llm = config.vision_config, config.text_config
    unit_patches = vit.spatial_merge_size**2
    merged_width = vit.hidden_size * unit_patches
    head = llm.hidden_size // llm.num_attention_heads
    return ModelDims(
        vit_layers=vit.depth,
        vit_width=vit.hidden_size,
        vit_mlp_width=vit.intermediate_size,
        vit_mlp_matrices=3,
        vit_prefix_tokens=0,
        patch_values=vit.in_channels * vit.temporal_patch_size * vit.patch_size**2,
        unit_patches=unit_patches,
        unit_pixel_values=vit.in_channels * (vit.patch_size * vit.spatial_merge_size) ** 2,
        projector_linears=((merged_width, merged_width), (merged_width, vit.out_hidden_size)),
        projectors=1,
        llm_layers=llm.num_hidden_layers,
        llm_width=llm.hidden_size,
        llm_query_width=llm.hidden_size,
        llm_key_width=llm.num_key_value_heads * head,
        llm_head_width=head,
        llm_mlp_width=llm.intermediate_size,
        llm_mlp_matrices=3,
        vocabulary=llm.vocab_size,
        vit_window=vit.window_size // vit.spatial_merge_size // vit.patch_size,
        vit_full_blocks=tuple(vit.fullatt_block_indexes),
    )


def _internvl(config: Any) -> ModelDims:
    """CLS stands in front of each tile; the tiles are the images of a sample (harness/models/families/internvl.py)."""
    vit, llm = config.vision_config, config.text_config
    head = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
    unit_patches = round(1 / config.downsample_ratio) ** 2
    patch_values = vit.num_channels * vit.patch_size[0] * vit.patch_size[1]
    return ModelDims(
        vit_layers=vit.num_hidden_layers,
        vit_width=vit.hidden_size,
        vit_mlp_width=vit.intermediate_size,
        vit_mlp_matrices=2,
        vit_prefix_tokens=1,
        patch_values=patch_values,
        unit_patches=unit_patches,
        unit_pixel_values=patch_values * unit_patches,
        projector_linears=((vit.hidden_size * unit_patches, llm.hidden_size), (llm.hidden_size, llm.hidden_size)),
        projectors=1,
        llm_layers=llm.num_hidden_layers,
        llm_width=llm.hidden_size,
        llm_query_width=llm.num_attention_heads * head,
        llm_key_width=llm.num_key_value_heads * head,
        llm_head_width=head,
        llm_mlp_width=llm.intermediate_size,
        llm_mlp_matrices=3,
        vocabulary=llm.vocab_size,
    )


def _llava(config: Any) -> ModelDims:
    """Blocks behind the feature layer are not run (harness/models/families/llava.py)."""
    vit, llm = config.vision_config, config.text_config
    head = getattr(llm, "head_dim", None) or llm.hidden_size // llm.num_attention_heads
    return ModelDims(
        vit_layers=range(vit.num_hidden_layers + 1)[config.vision_feature_layer],
        vit_width=vit.hidden_size,
        vit_mlp_width=vit.intermediate_size,
        vit_mlp_matrices=2,
        vit_prefix_tokens=1,
        patch_values=vit.num_channels * vit.patch_size**2,
        unit_patches=1,
        unit_pixel_values=vit.num_channels * vit.patch_size**2,
        projector_linears=((vit.hidden_size, llm.hidden_size), (llm.hidden_size, llm.hidden_size)),
        projectors=1,
        llm_layers=llm.num_hidden_layers,
        llm_width=llm.hidden_size,
        llm_query_width=llm.num_attention_heads * head,
        llm_key_width=llm.num_key_value_heads * head,
        llm_head_width=head,
        llm_mlp_width=llm.intermediate_size,
        llm_mlp_matrices=3,
        vocabulary=llm.vocab_size,
    )


_FAMILIES: dict[str, Callable[[Any], ModelDims]] = {
    "qwen3_vl": _qwen3_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "internvl": _internvl,
    "llava": _llava,
    "llava_next": _llava,
}
