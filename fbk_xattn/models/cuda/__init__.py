"""Triton kernels for what torch does slowly on CUDA devices; imported only on one.

fairseq imports every module of `models` but not those of its folders.
"""
