// As tests/corpus/warp_reduce.cu, but PoCL 3.1 has no shuffles on processors: where 32 lanes shuffle there, they go
// through local memory here, in the same five halvings.
__kernel void warp_reduce_sum(__global const float *in, __global float *out, int n)
{
    __local float lanes[1024];
    __local float part[32];
    int me = get_local_id(0), lane = me & 31, warp = me >> 5, warps = get_local_size(0) >> 5;
    float v = 0.0f;
    for (int i = get_global_id(0); i < n; i += get_global_size(0)) v += in[i];
    lanes[me] = v;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int o = 16; o > 0; o >>= 1) {
        if (lane < o) lanes[me] += lanes[me + o];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (lane == 0) part[warp] = lanes[me];
    barrier(CLK_LOCAL_MEM_FENCE);
    if (warp == 0) lanes[me] = lane < warps ? part[lane] : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int o = 16; o > 0; o >>= 1) {
        if (me < o) lanes[me] += lanes[me + o];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (me == 0) out[get_group_id(0)] = lanes[0];
}
