"""Threads side by side: the lowering of a kernel for strips of 4, 8 or 16 neighbouring threads in SIMD registers."""
