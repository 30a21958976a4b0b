// Pictures and volumes.

template <int side>
__device__ __forceinline__ void direct(const float *in, const float *weights, float *out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    in += blockIdx.z * width * height;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < side; i++)
#pragma unroll
        for (int j = 0; j < side; j++) {
            int down = y + i - side / 2, across = x + j - side / 2;
            if (down >= 0 && down < height && across >= 0 && across < width)
                sum += weights[i * side + j] * in[down * width + across];
        }
    out[(blockIdx.z * height + y) * width + x] = sum;
}

// Direct convolutions; a picture for each z. Outside is zero.
extern "C" __global__ void conv_3(const float *in, const float *weights, float *out, int width, int height)
{
    direct<3>(in, weights, out, width, height);
}
extern "C" __global__ void conv_5(const float *in, const float *weights, float *out, int width, int height)
{
    direct<5>(in, weights, out, width, height);
}
extern "C" __global__ void conv_7(const float *in, const float *weights, float *out, int width, int height)
{
    direct<7>(in, weights, out, width, height);
}

// A filter of its own for each channel, steps of two, halves of a picture's border cut off.
extern "C" __global__ void depthwise(const float *in, const float *weights, float *out, int width, int height,
                                     int out_width, int out_height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, c = blockIdx.z;
    if (x >= out_width || y >= out_height) return;
    float sum = 0;
    for (int k = 0; k < 9; k++)
        sum += weights[c * 9 + k] * in[(c * height + 2 * y + k / 3) * width + 2 * x + k % 3];
    out[(c * out_height + y) * out_width + x] = sum;
}

// The largest of each 2 x 2 points, and which it was.
extern "C" __global__ void max_pool(const float *in, float *out, unsigned char *which, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int across = (width + 1) / 2, down = (height + 1) / 2;
    if (x >= across || y >= down) return;
    float best = -__int_as_float(0x7f800000);
    unsigned char place = 0;
    for (int k = 0; k < 4; k++) {
        int u = 2 * x + (k & 1), v = 2 * y + (k >> 1);
        if (u < width && v < height && in[v * width + u] > best) { best = in[v * width + u]; place = k; }
    }
    out[y * across + x] = best;
    which[y * across + x] = place;
}

// To another size, by the four points around.
extern "C" __global__ void resize(const float *in, float *out, int width, int height, int new_width, int new_height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= new_width || y >= new_height) return;
    float u = fmaxf((x + 0.5f) * width / new_width - 0.5f, 0.0f), v = fmaxf((y + 0.5f) * height / new_height - 0.5f, 0.0f);
    int left = (int)u, top = (int)v, right = min(left + 1, width - 1), bottom = min(top + 1, height - 1);
    float du = u - left, dv = v - top;
    float above = in[top * width + left] * (1 - du) + in[top * width + right] * du;
    float below = in[bottom * width + left] * (1 - du) + in[bottom * width + right] * du;
    out[y * new_width + x] = above * (1 - dv) + below * dv;
}

// Sums over 2 r + 1 points of a row, by adding one and taking one away; a thread a row. The edge goes on outside.
extern "C" __global__ void running_sums(const int *in, int *out, int width, int height, int r)
{
    int y = blockIdx.x * blockDim.x + threadIdx.x;
    if (y >= height) return;
    in += y * width;
    out += y * width;
    int sum = 0;
    for (int k = -r; k <= r; k++) sum += in[min(max(k, 0), width - 1)];
    for (int x = 0; x < width; x++) {
        out[x] = sum;
        sum += in[min(x + r + 1, width - 1)] - in[max(x - r, 0)];
    }
}

// Edges: the size of the slope, kept in a byte. A tile of bytes with its border in shared memory.
extern "C" __global__ void sobel(const unsigned char *in, unsigned char *out, int width, int height)
{
    __shared__ unsigned char tile[18][18];
    int x = blockIdx.x * 16 + threadIdx.x, y = blockIdx.y * 16 + threadIdx.y;
    for (int i = threadIdx.y * 16 + threadIdx.x; i < 18 * 18; i += 256) {
        int u = (int)blockIdx.x * 16 + i % 18 - 1, v = (int)blockIdx.y * 16 + i / 18 - 1;
        tile[i / 18][i % 18] = in[min(max(v, 0), height - 1) * width + min(max(u, 0), width - 1)];
    }
    __syncthreads();
    if (x >= width || y >= height) return;
    const unsigned char(*at)[18] = tile + threadIdx.y;
    int i = threadIdx.x;
    int across = at[0][i + 2] + 2 * at[1][i + 2] + at[2][i + 2] - at[0][i] - 2 * at[1][i] - at[2][i];
    int down = at[2][i] + 2 * at[2][i + 1] + at[2][i + 2] - at[0][i] - 2 * at[0][i + 1] - at[0][i + 2];
    out[y * width + x] = (unsigned char)min(255, abs(across) + abs(down));
}

// The middle of nine, by a network of exchanges in registers.
extern "C" __global__ void median(const float *in, float *out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    float v[9];
#pragma unroll
    for (int k = 0; k < 9; k++)
        v[k] = in[min(max(y + k / 3 - 1, 0), height - 1) * width + min(max(x + k % 3 - 1, 0), width - 1)];
#pragma unroll
    for (int round = 0; round < 9; round++)
#pragma unroll
        for (int k = round & 1; k + 1 < 9; k += 2) {
            float low = fminf(v[k], v[k + 1]), high = fmaxf(v[k], v[k + 1]);
            v[k] = low;
            v[k + 1] = high;
        }
    out[y * width + x] = v[4];
}

// Seven points in three dimensions with a halo in dynamic shared memory; blocks of any shape. Outside is zero.
extern "C" __global__ void seven_points(const float *in, float *out, int nx, int ny, int nz)
{
    extern __shared__ float cube[];
    int px = blockDim.x + 2, py = blockDim.y + 2, pz = blockDim.z + 2;
    int id = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    for (int i = id; i < px * py * pz; i += blockDim.x * blockDim.y * blockDim.z) {
        int x = (int)(blockIdx.x * blockDim.x) + i % px - 1, y = (int)(blockIdx.y * blockDim.y) + i / px % py - 1;
        int z = (int)(blockIdx.z * blockDim.z) + i / (px * py) - 1;
        bool inside = x >= 0 && y >= 0 && z >= 0 && x < nx && y < ny && z < nz;
        cube[i] = inside ? in[(z * ny + y) * nx + x] : 0.0f;
    }
    __syncthreads();
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= nx || y >= ny || z >= nz) return;
    const float *at = cube + ((threadIdx.z + 1) * py + threadIdx.y + 1) * px + threadIdx.x + 1;
    out[(z * ny + y) * nx + x] = at[-1] + at[1] + at[-px] + at[px] + at[-px * py] + at[px * py] - 6 * at[0];
}

// 27 points of doubles; the cube's opposite sides meet.
extern "C" __global__ void around(const double *in, double *out, int nx, int ny, int nz)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= nx || y >= ny || z >= nz) return;
    double sum = 0;
    for (int k = 0; k < 27; k++) {
        int u = (x + k % 3 - 1 + nx) % nx, v = (y + k / 3 % 3 - 1 + ny) % ny, w = (z + k / 9 - 1 + nz) % nz;
        sum += (k == 13 ? 4.0 : 1.0) * in[(w * ny + v) * nx + u];
    }
    out[(z * ny + y) * nx + x] = sum / 30;
}

// Columns along z: three planes in registers move on. The first and the last plane stay.
extern "C" __global__ void columns(const float *in, float *out, int nx, int ny, int nz)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= nx || y >= ny) return;
    int plane = nx * ny, at = y * nx + x;
    float behind, here = in[at], ahead = in[at + plane];
    out[at] = here;
    for (int z = 1; z + 1 < nz; z++) {
        at += plane;
        behind = here;
        here = ahead;
        ahead = in[at + plane];
        out[at] = 0.25f * behind + 0.5f * here + 0.25f * ahead;
    }
    out[at + plane] = ahead;
}
