"""Speed and memory (``make bench``) and accuracy under label noise; never imported by src."""
