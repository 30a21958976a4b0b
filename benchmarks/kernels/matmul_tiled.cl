// As tests/corpus/matmul_tiled.cu, whose products and sums NVRTC fuses.
#define TILE 16

__kernel void matmul_tiled(__global const float *a, __global const float *b, __global float *c, int m, int n, int k)
{
    __local float as[TILE][TILE];
    __local float bs[TILE][TILE];
    int across = get_local_id(0), down = get_local_id(1);
    int row = get_group_id(1) * TILE + down, col = get_group_id(0) * TILE + across;
    float sum = 0.0f;
    for (int t = 0; t < (k + TILE - 1) / TILE; ++t) {
        int ac = t * TILE + across, br = t * TILE + down;
        as[down][across] = row < m && ac < k ? a[row * k + ac] : 0.0f;
        bs[down][across] = br < k && col < n ? b[br * n + col] : 0.0f;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int i = 0; i < TILE; ++i) sum = fma(as[down][i], bs[i][across], sum);
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (row < m && col < n) c[row * n + col] = sum;
}
