// Matrices in row order; edges need not fit.

extern "C" __global__ void transpose(const float *in, float *out, int rows, int columns)
{
    __shared__ float tile[32][33];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += blockDim.y)
        if (threadIdx.y + j < 32 && x < columns && y + j < rows) tile[threadIdx.y + j][threadIdx.x] = in[(y + j) * columns + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
    for (int j = 0; j < 32; j += blockDim.y)
        if (threadIdx.y + j < 32 && x < rows && y + j < columns) out[(y + j) * rows + x] = tile[threadIdx.x][threadIdx.y + j];
}

// One thread a cell; the grid's third axis is the batch.
extern "C" __global__ void matmul_naive(const float *a, const float *b, float *c, int m, int n, int k)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= n || row >= m) return;
    a += blockIdx.z * m * k;
    b += blockIdx.z * k * n;
    float sum = 0;
    for (int i = 0; i < k; i++) sum += a[row * k + i] * b[i * n + column];
    c[blockIdx.z * m * n + row * n + column] = sum;
}

// 64x64 tiles, 8x8 threads, each with 8x8 sums in registers.
extern "C" __global__ void __launch_bounds__(64) matmul_registers(const float *a, const float *b, float *c, int m,
                                                                    int n, int k)
{
    __shared__ float left[8][64];
    __shared__ float right[8][64];
    int id = threadIdx.y * 8 + threadIdx.x, row = blockIdx.y * 64, column = blockIdx.x * 64;
    float sum[8][8] = {};
    for (int base = 0; base < k; base += 8) {
        for (int i = 0; i < 8; i++) {
            int r = row + id, s = base + i;
            left[i][id] = r < m && s < k ? a[r * k + s] : 0;
            right[i][id] = column + id < n && s < k ? b[s * n + column + id] : 0;
        }
        __syncthreads();
        for (int i = 0; i < 8; i++) {
            float l[8], r[8];
            for (int j = 0; j < 8; j++) { l[j] = left[i][threadIdx.y * 8 + j]; r[j] = right[i][threadIdx.x * 8 + j]; }
            for (int y = 0; y < 8; y++)
                for (int x = 0; x < 8; x++) sum[y][x] += l[y] * r[x];
        }
        __syncthreads();
    }
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++) {
            int r = row + threadIdx.y * 8 + y, s = column + threadIdx.x * 8 + x;
            if (r < m && s < n) c[r * n + s] = sum[y][x];
        }
}

// Double precision with vector loads; columns a multiple of 2.
extern "C" __global__ void gemv(const double *a, const double *x, double *y, int rows, int columns)
{
    __shared__ double parts[1024];
    double sum = 0;
    const double2 *row = (const double2 *)(a + (long long)blockIdx.x * columns);
    for (int i = threadIdx.x; i < columns / 2; i += blockDim.x) {
        double2 v = row[i];
        sum += v.x * x[2 * i] + v.y * x[2 * i + 1];
    }
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < blockDim.x; i++) sum += parts[i];
        y[blockIdx.x] = sum;
    }
}

// Rows in compressed form, a warp a row.
extern "C" __global__ void spmv(const int *starts, const int *columns, const float *values, const float *x, float *y,
                                int rows)
{
    int row = (blockIdx.x * blockDim.x + threadIdx.x) >> 5, lane = threadIdx.x & 31;
    if (row >= rows) return;
    float sum = 0;
    for (int i = starts[row] + lane; i < starts[row + 1]; i += 32) sum += values[i] * x[columns[i]];
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    if (lane == 0) y[row] = sum;
}

// LU without pivots in shared memory: a barrier in a loop whose threads have less and less to do.
extern "C" __global__ void lu(float *data, int n)
{
    extern __shared__ float m[];
    data += blockIdx.x * n * n;
    for (int i = threadIdx.x; i < n * n; i += blockDim.x) m[i] = data[i];
    for (int k = 0; k < n; k++) {
        __syncthreads();
        for (int i = k + 1 + threadIdx.x; i < n; i += blockDim.x) m[i * n + k] /= m[k * n + k];
        __syncthreads();
        int rest = n - k - 1;
        for (int i = threadIdx.x; i < rest * rest; i += blockDim.x) {
            int y = k + 1 + i / rest, x = k + 1 + i % rest;
            m[y * n + x] -= m[y * n + k] * m[k * n + x];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n * n; i += blockDim.x) data[i] = m[i];
}
