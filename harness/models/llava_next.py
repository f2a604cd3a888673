"""LLaVA-NeXT: LLaVA on tiles of any resolution, the base image first, then the grid of tiles with a newline a row.

To the harness a picture is two images: the base tile, and the grid of all other tiles without their padding, (rows,
columns + 1) visual tokens with the newlines in the last column. Which ViT token stands behind which slot is asked of
the model's own `pack_image_features`, on an index tensor. In the ViT attention stays within a tile, and padding that
no slot shows takes part until the first cut. Newlines: harness/models/slots.py. Apache-2.0 upstream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from harness.models.cls_tower import Grids
from harness.models.family import Features, Inputs, Picture, Slots, single_prompt
from harness.models.llava import Llava
from harness.models.prompt import Prompt, VisualRows, image_spans
from harness.models.resizing import cut
from harness.models.slots import of_slots
from harness.models.vision import Segment, VisionState
from methods.base import PruningError


@dataclass(frozen=True)
class _Layout:
    """Where the visual tokens of a prompt come from. source (n,): patch of the prompt's tiles, -1 = a newline."""

    source: Tensor
    grids: Grids
    tiles: int
    owners: tuple[int, ...]  # the image of each tile


class LlavaNext(Llava):
    model_type = "llava_next"

    @property
    def _side(self) -> int:
        return self.tower.config.image_size // self.unit_px

    def inputs(self, processed: Mapping[str, Any]) -> Inputs:
        ids, sizes = single_prompt(processed), processed["image_sizes"].cpu()
        tiles = self._tiles(sizes)
        pixels = processed["pixel_values"]
        if pixels.ndim == 5:
            pixels = torch.cat([picture[:count] for picture, count in zip(pixels, tiles, strict=True)])
        layout = self._layout(sizes, tiles)
        counts = [rows * columns for rows, columns in layout.grids]
        spans = image_spans(ids[0].tolist(), self.model.config.image_token_id, counts)
        device = self.model.device
        return Inputs(
            prompt=Prompt(ids.to(device), torch.arange(ids.shape[1], device=device)[None], spans),
            pixels=pixels.to(device),
            geometry={name: tensor.to(device) for name, tensor in self._geometry(layout).items()},
            question_ids=self._question(ids[0], spans[0][0], spans[-1][1]).to(device),
            shape=self._tiled_shape(layout),
        )

    def pictures(self, processed: Mapping[str, Any]) -> list[Picture]:
        pixels, sizes = processed["pixel_values"], processed["image_sizes"]
        tiles = self._tiles(sizes.cpu())
        parts = pixels.split(1) if pixels.ndim == 5 else pixels.split(tiles)
        grids = self._layout(sizes.cpu(), tiles).grids
        counts = [rows * columns for rows, columns in grids]
        return [
            Picture(base + rest, {"pixel_values": part, "image_sizes": size[None]})
            for base, rest, part, size in zip(counts[::2], counts[1::2], parts, sizes, strict=True)
        ]

    def _tiles(self, sizes: Tensor) -> list[int]:
        """Tiles of each picture, its base image among them."""
        px, pinpoints = self.tower.config.image_size, self.model.config.image_grid_pinpoints
        return [image_size_to_num_patches(size, pinpoints, px) for size in sizes]

    def _layout(self, sizes: Tensor, tiles: Sequence[int]) -> _Layout:
        sources, grids, owners, first = [], [], [], 0
        for size, count in zip(sizes, tiles, strict=True):
            if count < 2:
                raise ValueError("LLaVA-NeXT is pruned with its base image and at least one tile; got the base alone")
            patches = torch.arange(count * self._side**2, dtype=torch.float64).view(count, -1, 1)
            packed, _ = self.model.model.pack_image_features([patches], size[None], "default", -torch.ones(1).double())
            source = packed[0][:, 0].long()
            columns = int(torch.nonzero(source < 0)[0]) - self._side**2 + 1
            grids += [(self._side, self._side), ((source.shape[0] - self._side**2) // columns, columns)]
            owners += [len(grids) - 2] + [len(grids) - 1] * (count - 1)
            sources.append(torch.where(source < 0, source, source + first * self._side**2))
            first += count
        return _Layout(torch.cat(sources), tuple(grids), first, tuple(owners))

    def _geometry(self, layout: _Layout) -> dict[str, Tensor]:
        """image, unit, patch of every unit that the ViT sees, tile by tile; blank: image and unit of the newlines."""
        counts = torch.tensor([rows * columns for rows, columns in layout.grids])
        image = torch.repeat_interleave(torch.arange(len(counts)), counts)
        unit = torch.cat([torch.arange(int(count)) for count in counts])
        blank = layout.source < 0
        order = torch.argsort(layout.source[~blank])
        return {
            "image": image[~blank][order],
            "unit": unit[~blank][order],
            "patch": layout.source[~blank][order],
            "blank": torch.stack([image[blank], unit[blank]], 1),
            "owners": torch.tensor(layout.owners),
        }

    def _tiled_shape(self, layout: _Layout) -> Any:
        patches = self._side**2
        shown = torch.bincount(layout.source[layout.source >= 0] // patches, minlength=layout.tiles).tolist()
        grids = tuple((rows, columns - number % 2) for number, (rows, columns) in enumerate(layout.grids))
        tiles = tuple((image, patches, units) for image, units in zip(layout.owners, shown, strict=True))
        return replace(self._shape(layout.grids), vit_grids=grids, tiles=tiles)

    def _units(self, inputs: Inputs) -> Tensor:
        return torch.cat([cut(tile, self.unit_px) for tile in inputs.pixels])[inputs.geometry["patch"]]

    def resized(self, inputs: Inputs, grids: Grids, mean: Sequence[float], std: Sequence[float]) -> Inputs:
        raise PruningError(
            "LLaVA-NeXT cuts a picture into tiles of one size, so its images cannot be resampled to another; "
            "use --method pool or grid"
        )

    def embed(self, inputs: Inputs, keep: Tensor | None) -> VisionState:
        geometry, side = inputs.geometry, self._side
        owners, patches = tuple(image for image, _, _ in inputs.shape.tiles), side**2
        patch, image, unit = geometry["patch"], geometry["image"], geometry["unit"]
        positions = self._positions(((side, side),))
        if keep is None:
            everything = self._embedded(inputs, None)  # (tiles * patches, d), padding too
            rows, hidden_padding = everything[patch] + positions[patch % patches], self._padding(inputs, everything)
        else:
            keep = keep.sort().values  # tile by tile
            rows, hidden_padding = self._embedded(inputs, keep) + positions[patch[keep] % patches], None
            patch, image, unit = patch[keep], image[keep], unit[keep]
        counts = [shown for _, _, shown in inputs.shape.tiles]
        if keep is not None:
            counts = torch.bincount(patch // patches, minlength=len(owners)).tolist()
        embeddings = self.tower.embeddings
        cls = (embeddings.class_embedding + embeddings.position_embedding.weight[0])[None]  # (1, d)
        fronts = [cls if hidden_padding is None else torch.cat([cls, pad]) for pad in hidden_padding or owners]
        segments = tuple(
            Segment(0, count, False, prefix=1, padding=front.shape[0] - 1)
            for count, front in zip(counts, fronts, strict=True)
        )
        state = VisionState(
            rows, None, None, segments, unit, image, torch.ones(unit.shape[0], device=unit.device), patches=1,
            owners=owners, blanks=geometry["blank"],
        )  # fmt: skip
        hidden = state.join(fronts, rows[:, None], [None] * len(owners))
        return replace(state, hidden=self.tower.pre_layrnorm(hidden))

    def _padding(self, inputs: Inputs, everything: Tensor) -> list[Tensor]:
        """Embedded patches of each tile that no slot shows."""
        side, tiles = self._side, len(inputs.shape.tiles)
        padding = torch.ones(everything.shape[0], dtype=torch.bool, device=everything.device)
        padding[inputs.geometry["patch"]] = False
        positioned = everything + self._positions(((side, side),)).repeat(tiles, 1)
        return list(positioned[padding].split([patches - shown for _, patches, shown in inputs.shape.tiles]))

    def project(self, state: VisionState) -> Features:
        hidden, image, unit, kind, size = state.rows()  # (n, 1, d)
        blank = state.blanks
        newline = self.model.model.image_newline.expand(blank.shape[0], -1)
        image, unit = torch.cat([image, blank[:, 0]]), torch.cat([unit, blank[:, 1]])
        place = torch.where(unit < 0, unit.max() + 1, unit)  # an aggregate stands last in its image
        order = torch.argsort(image * (place.max() + 1) + place)
        kind = torch.cat([kind, torch.zeros_like(blank[:, 0])])
        size = torch.cat([size, torch.ones_like(blank[:, 0], dtype=size.dtype)])
        counts = torch.bincount(image, minlength=max(state.owners) + 1).tolist()
        own = torch.arange(hidden.shape[0], device=order.device)
        source = torch.cat([own, torch.full_like(blank[:, 0], -1)])[order]
        rows = VisualRows(*(x[order] for x in (image, unit, kind, size)), tuple(counts))
        tokens = torch.cat([self.projector(hidden.flatten(0, 1)), newline.to(hidden.dtype)])[order]
        return Features(tokens, (), of_slots(hidden, source), Slots(rows, source))
