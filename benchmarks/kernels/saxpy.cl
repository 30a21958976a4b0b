// As examples/saxpy/saxpy.cu, whose product and sum NVRTC fuses.
__kernel void saxpy(int n, float a, __global const float *restrict x, __global float *restrict y)
{
    for (int i = get_global_id(0); i < n; i += get_global_size(0)) y[i] = fma(a, x[i], y[i]);
}
