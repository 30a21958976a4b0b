// As tests/corpus/softmax.cu.
__kernel void softmax_rows(__global const float *x, __global float *y, int cols, __local float *sm)
{
    int me = get_local_id(0), threads = get_local_size(0);
    __global const float *xr = x + (size_t)get_group_id(0) * cols;
    __global float *yr = y + (size_t)get_group_id(0) * cols;
    float m = -3.402823466e+38f;
    for (int c = me; c < cols; c += threads) m = fmax(m, xr[c]);
    sm[me] = m;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = threads >> 1; s > 0; s >>= 1) {
        if (me < s) sm[me] = fmax(sm[me], sm[me + s]);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    m = sm[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = 0.0f;
    for (int c = me; c < cols; c += threads) sum += exp(xr[c] - m);
    sm[me] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = threads >> 1; s > 0; s >>= 1) {
        if (me < s) sm[me] += sm[me + s];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    sum = sm[0];
    for (int c = me; c < cols; c += threads) yr[c] = exp(xr[c] - m) / sum;
}
