"""Points with mass onto voxels, by quadratic splines whose transfer the microscope undoes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

# Few enough that the voxels around a body's points stay in the cache.
_CHUNK = 4096


def splat(
    shape_zyx: tuple[int, int, int],
    zyx_voxel: Float[NDArray[np.float64], "n 3"],
    mass: Float[NDArray[np.float64], " n"],
) -> Float[NDArray[np.float32], "z y x"]:
    """The mass in each voxel; what lies outside is left out."""
    out = np.zeros(int(np.prod(shape_zyx)), np.float32)
    inside = np.all((zyx_voxel > 0.51) & (zyx_voxel < np.asarray(shape_zyx) - 1.51), axis=1)
    points, mass = zyx_voxel[inside].astype(np.float32), mass[inside].astype(np.float32)
    _, rows, columns = shape_zyx
    for start in range(0, len(points), _CHUNK):
        part, weight = points[start : start + _CHUNK], mass[start : start + _CHUNK]
        base = np.floor(part + 0.5).astype(np.int64)
        off = part - base
        line = [0.5 * (0.5 - off) ** 2, 0.75 - off**2, 0.5 * (0.5 + off) ** 2]
        first = ((base[:, 0] - 1) * rows + base[:, 1] - 1) * columns + base[:, 2] - 1
        index = np.empty((27, len(part)), np.int64)
        value = np.empty((27, len(part)), np.float32)
        n = 0
        for dz in range(3):
            of_z = weight * line[dz][:, 0]
            for dy in range(3):
                of_y = of_z * line[dy][:, 1]
                for dx in range(3):
                    np.add(first, (dz * rows + dy) * columns + dx, out=index[n])
                    np.multiply(of_y, line[dx][:, 2], out=value[n])
                    n += 1
        np.add.at(out, index.ravel(), value.ravel())
    return out.reshape(shape_zyx)
