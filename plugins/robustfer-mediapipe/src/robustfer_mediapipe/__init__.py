"""Landmarks for a folder of faces by MediaPipe's face mesh.

A program apart, in an environment apart: it imports neither robustfer nor torch, and hands
robustfer a file.
"""

__version__ = "0.1.0"
