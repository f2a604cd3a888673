"""LLaVA-NeXT: LLaVA on tiles of any resolution, the base image first, then the grid of tiles with a newline a row.

To the harness a picture is two images: the base tile, and the grid of all other tiles without their padding, (rows,
columns + 1) visual tokens with the newlines in the last column. Which ViT token stands behind which slot is asked of
the model's own `pack_image_features`, on an index tensor. In the ViT attention stays within a tile, and padding that
no slot shows takes part until the first cut. Newlines: harness/models/interface.py. Apache-2.0 upstream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from harness.models.attention import Capture
from harness.models.families.cls_tower import Grids
from harness.models.families.family import Features, Inputs, Picture, Slots, single_prompt
from harness.models.families.llava import Llava
from harness.models.families.resizing import cut
from harness.models.families.tiles import TiledState
from harness.models.interface import of_slots
from harness.models.prompt import Prompt, VisualRows, image_spans
from harness.models.signals import vit_signal
from harness.models.vision_state import NOWHERE, Segment, VisionState
from methods.base import PruningError, Signal


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
            "back": self._back(layout),
        }

    def _back(self, layout: _Layout) -> Tensor:
        """Where CLS, padding and the patches that are shown stand among a tile's tokens, tile by tile."""
        patches = self._side**2
        shown = torch.zeros(layout.tiles * patches, dtype=torch.bool)
        shown[layout.source[layout.source >= 0]] = True
        if bool(shown.all()):
            return NOWHERE
        rank = torch.nn.functional.pad(shown.view(-1, patches).int() + 1, (1, 0))  # 0 CLS, 1 padding, 2 shown
        starts = torch.arange(layout.tiles)[:, None] * (patches + 1)
        return (torch.argsort(rank, dim=1, stable=True) + starts).flatten()

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
        return self._embed_whole(inputs) if keep is None else self._embed_kept(inputs, keep.sort().values)

    def _embed_whole(self, inputs: Inputs) -> TiledState:
        """All patches of all tiles, padding too, as they stand natively."""
        geometry, tiles = inputs.geometry, inputs.shape.tiles
        patches = self._embedded(inputs, None).unflatten(0, (len(tiles), -1))  # (tiles, patches, d)
        positioned = patches + self._positions(((self._side, self._side),))
        hidden = torch.cat([self._cls().expand(len(tiles), 1, -1), positioned], 1).flatten(0, 1)
        segments = tuple(Segment(0, shown, False, prefix=1, padding=patches - shown) for _, patches, shown in tiles)
        return self._state(hidden, segments, inputs, geometry["unit"], geometry["image"], geometry["back"])

    def _embed_kept(self, inputs: Inputs, keep: Tensor) -> TiledState:
        """The patches that `keep` names, tile by tile."""
        geometry, tiles = inputs.geometry, len(inputs.shape.tiles)
        patch, image, unit = (geometry[name][keep] for name in ("patch", "image", "unit"))
        rows = self._embedded(inputs, keep) + self._positions(((self._side, self._side),))[patch % self._side**2]
        counts = torch.bincount(patch // self._side**2, minlength=tiles).tolist()
        segments = tuple(Segment(0, count, False, prefix=1) for count in counts)
        state = self._state(rows, segments, inputs, unit, image, NOWHERE)
        return replace(
            state, hidden=state.join([self._normed(self._cls())] * tiles, state.hidden[:, None], [None] * tiles)
        )

    def _state(
        self, embedded: Tensor, segments: tuple[Segment, ...], inputs: Inputs, unit: Tensor, image: Tensor, back: Tensor
    ) -> TiledState:
        size = torch.ones(unit.shape[0], device=unit.device)
        owners = tuple(image for image, _, _ in inputs.shape.tiles)
        return TiledState(
            self._normed(embedded), None, None, segments, unit, image, size, patches=1, owners=owners,
            blanks=inputs.geometry["blank"], back=back,
        )  # fmt: skip

    def vision_signal(self, signal: Signal, state: VisionState, captures: list[Capture]) -> Tensor:
        assert isinstance(state, TiledState)
        return vit_signal(signal, state.in_order(), state.captures_in_order(captures))

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

    def _pooled(self, features: Features, counts: tuple[int, ...]) -> Any:
        pictures = [base + rest for base, rest in zip(counts[::2], counts[1::2], strict=True)]
        return features.tokens.split(pictures)
