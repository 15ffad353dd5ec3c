"""Find landmarks in a folder of faces with MediaPipe's face mesh.

It is a separate program for a separate environment. It imports neither robustfer nor torch, and
writes a file that robustfer reads.
"""

__version__ = "0.1.0"
