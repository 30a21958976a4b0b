// As tests/corpus/histogram.cu.
__kernel void histogram256(__global const uchar *data, __global uint *bins, int n)
{
    __local uint h[256];
    int me = get_local_id(0), threads = get_local_size(0);
    for (int i = me; i < 256; i += threads) h[i] = 0;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = get_global_id(0); i < n; i += get_global_size(0)) atomic_inc(&h[data[i]]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = me; i < 256; i += threads) atomic_add(&bins[i], h[i]);
}
