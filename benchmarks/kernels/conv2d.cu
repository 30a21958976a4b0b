// out = in convolved with 7x7 weights, zeros outside. Block 16x16; the tile with its edges of 3 is in shared memory.
#define TILE 16
#define REACH 3
#define SIDE (TILE + 2 * REACH)

extern "C" __global__ void conv2d(const float *in, const float *weights, float *out, int width, int height)
{
    __shared__ float tile[SIDE][SIDE];
    int left = blockIdx.x * TILE - REACH, top = blockIdx.y * TILE - REACH;
    for (int i = threadIdx.y * TILE + threadIdx.x; i < SIDE * SIDE; i += TILE * TILE) {
        int x = left + i % SIDE, y = top + i / SIDE;
        tile[i / SIDE][i % SIDE] = x >= 0 && x < width && y >= 0 && y < height ? in[y * width + x] : 0.0f;
    }
    __syncthreads();
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    if (x >= width || y >= height) return;
    float sum = 0.0f;
    for (int j = 0; j < 2 * REACH + 1; j++)
        for (int i = 0; i < 2 * REACH + 1; i++)
            sum = fmaf(tile[threadIdx.y + j][threadIdx.x + i], weights[j * (2 * REACH + 1) + i], sum);
    out[y * width + x] = sum;
}
