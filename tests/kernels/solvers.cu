// Systems of equations, and equations that run in time.

// One round of Jacobi's method for dense rows, a warp a row; how much changed.
extern "C" __global__ void jacobi_round(const double *a, const double *b, const double *x, double *next, double *change, int n)
{
    int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x & 31;
    if (row >= n) return;
    double sum = 0;
    for (int j = lane; j < n; j += 32)
        if (j != row) sum += a[row * n + j] * x[j];
    for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    if (lane == 0) {
        double now = (b[row] - sum) / a[row * n + row];
        atomicAdd(change, fabs(now - x[row]));
        next[row] = now;
    }
}

// A lower triangle, column by column; a block a right-hand side, which stays in shared memory.
extern "C" __global__ void lower_solve(const double *l, const double *b, double *x, int n)
{
    extern __shared__ double kept[];
    b += blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) kept[i] = b[i];
    for (int j = 0; j < n; j++) {
        __syncthreads();
        if (threadIdx.x == 0) kept[j] /= l[j * n + j];
        __syncthreads();
        for (int i = j + 1 + threadIdx.x; i < n; i += blockDim.x) kept[i] -= l[i * n + j] * kept[j];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[blockIdx.x * n + i] = kept[i];
}

// Cholesky's factor in place, a block a matrix.
extern "C" __global__ void cholesky(float *matrices, int n)
{
    float *a = matrices + blockIdx.x * n * n;
    for (int k = 0; k < n; k++) {
        if (threadIdx.x == 0) a[k * n + k] = sqrtf(a[k * n + k]);
        __syncthreads();
        for (int i = k + 1 + threadIdx.x; i < n; i += blockDim.x) a[i * n + k] /= a[k * n + k];
        __syncthreads();
        int rest = n - k - 1;
        for (int at = threadIdx.x; at < rest * rest; at += blockDim.x) {
            int i = k + 1 + at / rest, j = k + 1 + at % rest;
            if (j <= i) a[i * n + j] -= a[i * n + k] * a[j * n + k];
        }
        __syncthreads();
    }
}

// Three diagonals by Thomas's method, a thread a system; the systems' elements lie side by side.
extern "C" __global__ void thomas(const double *low, const double *mid, const double *high, double *x, double *work, int n,
                                  int systems)
{
    int s = blockIdx.x * blockDim.x + threadIdx.x;
    if (s >= systems) return;
    double c = high[s] / mid[s], d = x[s] / mid[s];
    work[s] = c;
    x[s] = d;
    for (int i = 1; i < n; i++) {
        int at = i * systems + s;
        double scale = 1 / (mid[at] - low[at] * c);
        c = high[at] * scale;
        d = (x[at] - low[at] * d) * scale;
        work[at] = c;
        x[at] = d;
    }
    for (int i = n - 2; i >= 0; i--) {
        int at = i * systems + s;
        d = x[at] - work[at] * d;
        x[at] = d;
    }
}

// The same by cyclic reduction, all rows at once: a block a system of as many rows as threads, 16 bytes of shared a row.
extern "C" __global__ void cyclic(const float *low, const float *mid, const float *high, const float *right, float *x)
{
    extern __shared__ float4 rows[];
    int i = threadIdx.x, n = blockDim.x, at = blockIdx.x * n + i;
    float4 mine = make_float4(i ? low[at] : 0, mid[at], i + 1 < n ? high[at] : 0, right[at]);
    for (int step = 1; step < n; step *= 2) {
        rows[i] = mine;
        __syncthreads();
        float4 up = i >= step ? rows[i - step] : make_float4(0, 1, 0, 0);
        float4 down = i + step < n ? rows[i + step] : make_float4(0, 1, 0, 0);
        float p = -mine.x / up.y, q = -mine.z / down.y;
        mine = make_float4(p * up.x, mine.y + p * up.z + q * down.x, q * down.z, mine.w + p * up.w + q * down.w);
        __syncthreads();
    }
    x[at] = mine.w / mine.y;
}

// Conjugate gradients for rows of values and places, in one block of a power of two threads.
extern "C" __global__ void conjugate(const int *starts, const int *columns, const double *values, const double *b, double *x,
                                     double *r, double *p, double *q, int n, double enough, int *rounds)
{
    __shared__ double partial[256];
    auto dot = [&](const double *u, const double *v) {
        double sum = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) sum += u[i] * v[i];
        __syncthreads();
        partial[threadIdx.x] = sum;
        for (int half = blockDim.x / 2; half; half /= 2) {
            __syncthreads();
            if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        }
        __syncthreads();
        return partial[0];
    };
    for (int i = threadIdx.x; i < n; i += blockDim.x) { x[i] = 0; r[i] = p[i] = b[i]; }
    __syncthreads();
    double square = dot(r, r);
    int round = 0;
    for (; square > enough && round < 4 * n; round++) {
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            double sum = 0;
            for (int e = starts[i]; e < starts[i + 1]; e++) sum += values[e] * p[columns[e]];
            q[i] = sum;
        }
        __syncthreads();
        double step = square / dot(p, q);
        for (int i = threadIdx.x; i < n; i += blockDim.x) { x[i] += step * p[i]; r[i] -= step * q[i]; }
        __syncthreads();
        double now = dot(r, r);
        for (int i = threadIdx.x; i < n; i += blockDim.x) p[i] = r[i] + now / square * p[i];
        square = now;
        __syncthreads();
    }
    if (threadIdx.x == 0) *rounds = round;
}

// The inverse by Gauss and Jordan with pivots; a block a matrix of up to 32 rows, both halves in shared memory.
extern "C" __global__ void inverse(const float *in, float *out, int n)
{
    __shared__ float a[32][65];
    __shared__ int pivot;
    in += blockIdx.x * n * n;
    out += blockIdx.x * n * n;
    for (int i = threadIdx.x; i < n * n; i += blockDim.x) {
        a[i / n][i % n] = in[i];
        a[i / n][n + i % n] = i / n == i % n;
    }
    __syncthreads();
    for (int k = 0; k < n; k++) {
        if (threadIdx.x == 0) {
            pivot = k;
            for (int i = k + 1; i < n; i++)
                if (fabsf(a[i][k]) > fabsf(a[pivot][k])) pivot = i;
        }
        __syncthreads();
        if (pivot != k)
            for (int j = threadIdx.x; j < 2 * n; j += blockDim.x) {
                float t = a[k][j];
                a[k][j] = a[pivot][j];
                a[pivot][j] = t;
            }
        __syncthreads();
        float scale = 1 / a[k][k];
        __syncthreads();
        for (int j = threadIdx.x; j < 2 * n; j += blockDim.x) a[k][j] *= scale;
        __syncthreads();
        for (int j = threadIdx.x; j < 2 * n; j += blockDim.x)
            if (j != k)
                for (int i = 0; i < n; i++)
                    if (i != k) a[i][j] -= a[i][k] * a[k][j];
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            if (i != k) a[i][k] = 0;
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n * n; i += blockDim.x) out[i] = a[i / n][n + i % n];
}

// Runge and Kutta's fourth order: pendulums with friction, a thread each.
extern "C" __global__ void pendulums(double2 *state, double friction, double step, int steps, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double2 y = state[i];
    for (int s = 0; s < steps; s++) {
        double2 sum = make_double2(0, 0), k = sum;
        for (int stage = 0; stage < 4; stage++) {
            double by = stage == 0 ? 0 : stage == 3 ? 1 : 0.5;
            double angle = y.x + by * step * k.x, speed = y.y + by * step * k.y;
            k = make_double2(speed, -sin(angle) - friction * speed);
            double weight = stage == 0 || stage == 3 ? 1 : 2;
            sum.x += weight * k.x;
            sum.y += weight * k.y;
        }
        y.x += step / 6 * sum.x;
        y.y += step / 6 * sum.y;
    }
    state[i] = y;
}

// Spins on a ring-shaped board, every other one at a time; random numbers are a hash of place and round.
extern "C" __global__ void spins(signed char *board, const float *chances, int width, int height, unsigned round)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height || ((x + y + round) & 1)) return;
    int up = (y + height - 1) % height * width, down = (y + 1) % height * width, here = y * width;
    int around = board[up + x] + board[down + x] + board[here + (x + 1) % width] + board[here + (x + width - 1) % width];
    int energy = board[here + x] * around;
    unsigned h = (here + x) * 2654435761u ^ round * 2246822519u;
    h = (h ^ h >> 15) * 2246822519u;
    h = (h ^ h >> 13) * 3266489917u;
    h ^= h >> 16;
    if (energy <= 0 || (h >> 8) * 5.9604645e-8f < chances[energy / 2]) board[here + x] = -board[here + x];
}
