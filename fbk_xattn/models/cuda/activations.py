"""What kernels compute of single numbers."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """The logistic function of float32, within its rounding; zero where it is below 2^-64.

    ``tl.sigmoid`` takes twice the instructions, for results that are not normal numbers; a product
    with swish spent more of them there than in the product.
    """
    inverse = 1.0 + tl.exp2(x * -1.4426950408889634)
    return tl.rsqrt(inverse * inverse)
