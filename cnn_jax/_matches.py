"""Matches of `find`, and their boxes."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._rectangles import corner_offsets, cos_and_sin


class Matches(NamedTuple):
    """Features found in an image, the best first.

    `y`, `x` are the row and the column of the top left pixel of an upright box of `height` by `width` pixels around the
    feature, scaled and rotated. `template_height`, `template_width` are the rows and columns of the scaled feature
    before it is rotated. `angle` is in radians, counterclockwise as seen. `feature` is the index of the feature. Where
    `valid` is false there are no more matches: `feature` is -1, all other fields are 0.

    `found` is one number: how many matches there were before `top_k` cut them. It counts up to 1,000, or up to `top_k`
    if this is more; with a range of scales or angles, up to three times `top_k`, or 16 if this is more.

    >>> import jax
    >>> from cnn_jax import find
    >>> image = jax.random.normal(jax.random.key(0), (20, 30))
    >>> matches = find(image, image[5:8, 10:14], min_score=0.9, top_k=1, subpixel=False)
    >>> matches.center, matches.found
    (Array([[ 6. , 11.5]], dtype=float32), Array(1, dtype=int32))
    >>> matches.corners[0]
    Array([[ 4.5,  9.5],
           [ 4.5, 13.5],
           [ 7.5, 13.5],
           [ 7.5,  9.5]], dtype=float32)
    """

    y: Float[Array, "*batch k"]
    x: Float[Array, "*batch k"]
    score: Float[Array, "*batch k"]
    feature: Int[Array, "*batch k"]
    scale: Float[Array, "*batch k"]
    angle: Float[Array, "*batch k"]
    height: Float[Array, "*batch k"]
    width: Float[Array, "*batch k"]
    valid: Bool[Array, "*batch k"]
    template_height: Float[Array, "*batch k"]
    template_width: Float[Array, "*batch k"]
    found: Int[Array, "*batch"]

    @property
    def center(self) -> Float[Array, "... 2"]:
        """Row and column of each match's center, between pixels if the box has an even side."""
        y = self.y + (self.height - 1) / 2
        x = self.x + (self.width - 1) / 2
        return jnp.where(self.valid[..., None], jnp.stack([y, x], axis=-1), 0)

    @property
    def corners(self) -> Float[Array, "... 4 2"]:
        """Rows and columns of the corners of each rotated feature.

        The corners are those of the pixels' area: half a pixel outside of the centers of the outermost pixels. The
        order is top left, top right, bottom right, bottom left of the feature before it is rotated.
        """
        height, width, angle = map(jnp.asarray, (self.template_height, self.template_width, self.angle))
        offsets = corner_offsets(height, width, *cos_and_sin(angle))
        corners = jnp.stack([jnp.stack(offset, axis=-1) for offset in offsets], axis=-2)
        return jnp.where(self.valid[..., None, None], self.center[..., None, :] + corners, 0)
