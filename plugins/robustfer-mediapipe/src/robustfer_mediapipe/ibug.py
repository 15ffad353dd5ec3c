"""Choose the vertices of MediaPipe's face mesh for the 68 points of the iBUG layout.

They are derived, not copied. MediaPipe names the vertices along eyes, lips, brows, nose and the
oval of the face (its lists ``FACEMESH_*``). The iBUG points divide such lines into equal steps.

- The ends of the lines are the corners of eyes and mouth. The jaw goes from the vertex of the oval
  nearest to the level of the eyes' outer corners to the chin. The bridge of the nose goes from the
  vertex nearest to the level of the eyes' corners to the tip, where the outline of the wings
  crosses it.
- A line is divided into equal steps of arc length, averaged over many faces: 8 from eye level to
  chin, 3 along the bridge, 3 along a lid, 6 along the outer and 4 along the inner edge of a lip.
  Each point is the vertex nearest to its place.
- A brow is the upper one of its two lines, which has five vertices. The base of the nose is the
  five vertices of its line below the nostrils.

``tests/test_ibug_mesh.py`` derives them again from the lists of the installed mediapipe. Points are
vertices, so the steps are not quite equal. Points of the jaw are up to 9 %, all others up to 3 % of
the distance between the eyes' outer corners away from their places, along the line.
"""

from __future__ import annotations

from typing import Final

import numpy as np

#: Vertex of the mesh for each of the 68 points. Left is that of the image.
IBUG_68: Final = np.array(
    [
        *(127, 234, 132, 58, 172, 136, 149, 148),  # jaw, from the left
        152,  # chin
        *(377, 378, 365, 397, 288, 361, 454, 356),
        *(70, 63, 105, 66, 107),  # left brow, from the left
        *(336, 296, 334, 293, 300),  # right brow, from the left
        *(6, 197, 5, 4),  # bridge of the nose, down to the tip
        *(98, 97, 2, 326, 327),  # base of the nose, from the left
        *(33, 160, 158, 133, 153, 144),  # left eye: upper lid from the left, lower lid back
        *(362, 385, 387, 263, 373, 380),  # right eye, in the same order
        *(61, 40, 37, 0, 267, 270, 291),  # outer edge of the upper lip, from the left
        *(321, 314, 17, 84, 91),  # outer edge of the lower lip, back
        *(78, 81, 13, 311, 308),  # inner edge of the upper lip, from the left
        *(402, 14, 178),  # inner edge of the lower lip, back
    ]
)

#: For each point, the point at its place in the mirrored image.
SWAP: Final = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(*range(54, 47, -1), *range(59, 54, -1)),
        *(*range(64, 59, -1), *range(67, 64, -1)),
    ]
)

#: The points of each part of the face.
PARTS: Final = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}
