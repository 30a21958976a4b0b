// As conv2d.cu.
#define TILE 16
#define REACH 3
#define SIDE (TILE + 2 * REACH)

__kernel void conv2d(__global const float *in, __global const float *weights, __global float *out, int width, int height)
{
    __local float tile[SIDE][SIDE];
    int across = get_local_id(0), down = get_local_id(1);
    int left = get_group_id(0) * TILE - REACH, top = get_group_id(1) * TILE - REACH;
    for (int i = down * TILE + across; i < SIDE * SIDE; i += TILE * TILE) {
        int x = left + i % SIDE, y = top + i / SIDE;
        tile[i / SIDE][i % SIDE] = x >= 0 && x < width && y >= 0 && y < height ? in[y * width + x] : 0.0f;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    int x = get_group_id(0) * TILE + across, y = get_group_id(1) * TILE + down;
    if (x >= width || y >= height) return;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 2 * REACH + 1; j++)
#pragma unroll
        for (int i = 0; i < 2 * REACH + 1; i++)
            sum = fma(tile[down + j][across + i], weights[j * (2 * REACH + 1) + i], sum);
    out[y * width + x] = sum;
}
