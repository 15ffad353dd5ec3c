"""Find the 68 points of a face with MediaPipe's face mesh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robustfer_mediapipe.ibug import IBUG_68


class FaceMesh:
    """Find the face in an image. A call with pixels returns 68 points, or ``None``.

    Of several faces it takes the one with MediaPipe's highest confidence, so crop the faces of
    groups first. Equal pixels give equal points, in any order of the images.

    Args:
        margin: how far each side of the image is extended, as a share of its size, by repeating its
            edge. The detector expects something around a face, and finds fewer faces in tightly
            cropped images.
        confidence: least confidence of the detector, from 0 to 1.

    Shape:
        uint8 ``(H, W, 3)``, RGB -> float32 ``(68, 2)``: (x, y) in pixels of the image. (0, 0) is
        the middle of the upper left pixel. Points can be outside the image.
    """

    def __init__(self, *, margin: float = 0.25, confidence: float = 0.5) -> None:
        # Imported here, because it takes seconds, which --help should not need.
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh as Solution
        except ImportError as error:
            raise ImportError(
                f"mediapipe cannot be imported: {error}; if a library such as libGL.so.1 is "
                "missing, install it: apt-get install libgl1 libglib2.0-0 on Debian and Ubuntu"
            ) from error

        self.margin = margin
        self._solution = Solution(
            static_image_mode=True,  # ignores the image before
            refine_landmarks=True,
            max_num_faces=1,
            min_detection_confidence=confidence,
        )

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Return the points of the face in an image."""
        vertices = self.vertices(pixels)
        return None if vertices is None else vertices[IBUG_68]

    def vertices(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Return all 478 vertices of the mesh, as (x, y) in pixels."""
        above, left = (round(self.margin * side) for side in pixels.shape[:2])
        wide = np.pad(pixels, ((above, above), (left, left), (0, 0)), mode="edge")
        faces = self._solution.process(wide).multi_face_landmarks
        if not faces:
            return None
        shares = np.array([(vertex.x, vertex.y) for vertex in faces[0].landmark])
        # MediaPipe's share of the width, times the width, is 0 in the middle of the first pixel,
        # not at its edge. Half a pixel less would move the points of an enlarged image.
        height, width = wide.shape[:2]
        vertices: NDArray[np.float32] = np.asarray(
            shares * (width, height) - (left, above), dtype=np.float32
        )
        return vertices
