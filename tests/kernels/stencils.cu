// Neighbourhoods.

__constant__ float taps[15] = {1, -2, 3, -4, 5, -6, 7, 8, 7, -6, 5, -4, 3, -2, 1};

// Five points with a halo in shared memory; outside is zero. Blocks of any shape.
extern "C" __global__ void five_point(const float *in, float *out, int width, int height)
{
    extern __shared__ float tile[];
    int pitch = blockDim.x + 2, rows = blockDim.y + 2;
    int left = blockIdx.x * blockDim.x - 1, top = blockIdx.y * blockDim.y - 1;
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < pitch * rows; i += blockDim.x * blockDim.y) {
        int x = left + i % pitch, y = top + i / pitch;
        tile[i] = x >= 0 && y >= 0 && x < width && y < height ? in[y * width + x] : 0.0f;
    }
    __syncthreads();
    int x = left + 1 + threadIdx.x, y = top + 1 + threadIdx.y;
    if (x >= width || y >= height) return;
    const float *at = tile + (threadIdx.y + 1) * pitch + threadIdx.x + 1;
    out[y * width + x] = at[-1] + at[1] + at[-pitch] + at[pitch] - 4 * at[0];
}

// Fifteen taps from constant memory, halo in static shared memory, at most 256 threads.
extern "C" __global__ void convolve(const float *in, float *out, int n)
{
    __shared__ float row[256 + 14];
    int start = blockIdx.x * blockDim.x, i = start + threadIdx.x;
    for (int j = threadIdx.x; j < blockDim.x + 14; j += blockDim.x) {
        int from = start + j - 7;
        row[j] = from >= 0 && from < n ? in[from] : 0.0f;
    }
    __syncthreads();
    if (i >= n) return;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 15; j++) sum += taps[j] * row[threadIdx.x + j];
    out[i] = sum;
}

// Images with channels: 3x3 filters, batch on the third grid axis.
extern "C" __global__ void convolve_2d(const float *in, const float *filters, float *out, int channels, int kept,
                                       int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int k = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= width || y >= height || k >= kept) return;
    float sum = 0;
    for (int c = 0; c < channels; c++)
        for (int j = -1; j <= 1; j++)
            for (int i = -1; i <= 1; i++) {
                if (x + i < 0 || x + i >= width || y + j < 0 || y + j >= height) continue;
                sum += in[(c * height + y + j) * width + x + i] * filters[((k * channels + c) * 3 + j + 1) * 3 + i + 1];
            }
    out[(k * height + y) * width + x] = sum;
}

// Steps of Jacobi's method on a square in shared memory, until the largest change is small: returns the steps.
extern "C" __global__ void jacobi(double *field, int size, double enough, int most, int *steps)
{
    extern __shared__ double cells[];
    int count = size * size, step = 0;
    double *now = cells, *next = cells + count;
    for (int i = threadIdx.x; i < count; i += blockDim.x) now[i] = next[i] = field[i];
    int moved;
    do {
        __syncthreads();
        moved = 0;
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            int x = i % size, y = i / size;
            if (x == 0 || y == 0 || x == size - 1 || y == size - 1) continue;
            double value = 0.25 * (now[i - 1] + now[i + 1] + now[i - size] + now[i + size]);
            if (fabs(value - now[i]) > enough) moved = 1;
            next[i] = value;
        }
        double *other = now;
        now = next;
        next = other;
        step++;
    } while (__syncthreads_or(moved) && step < most);
    for (int i = threadIdx.x; i < count; i += blockDim.x) field[i] = now[i];
    if (threadIdx.x == 0) *steps = step;
}

// Seven points in three dimensions, one thread a cell of a three-dimensional grid.
extern "C" __global__ void seven_point(const double *in, double *out, int nx, int ny, int nz)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= nx || y >= ny || z >= nz) return;
    int i = (z * ny + y) * nx + x;
    double sum = -6 * in[i];
    sum += in[x > 0 ? i - 1 : i] + in[x < nx - 1 ? i + 1 : i];
    sum += in[y > 0 ? i - nx : i] + in[y < ny - 1 ? i + nx : i];
    sum += in[z > 0 ? i - nx * ny : i] + in[z < nz - 1 ? i + nx * ny : i];
    out[i] = sum;
}

// Conway's game, eight cells a byte-wide word: bytes and wrap-around.
extern "C" __global__ void life(const unsigned char *in, unsigned char *out, int width, int height)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < width * height; i += gridDim.x * blockDim.x) {
        int x = i % width, y = i / width, count = 0;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1; dx++)
                if (dx || dy) count += in[(y + dy + height) % height * width + (x + dx + width) % width];
        out[i] = count == 3 || (count == 2 && in[i]);
    }
}
