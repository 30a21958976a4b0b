// Transforms.

__device__ float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
__device__ float2 turn(float angle) { float2 r; sincosf(angle, &r.y, &r.x); return r; }

// Radix two, from one half of the shared memory to the other, so that nothing is reordered; doubles. A block a row of n,
// 32 n bytes; n / 2 pieces of work for any number of threads.
extern "C" __global__ void radix_2(const double2 *in, double2 *out, int n)
{
    extern __shared__ double2 both[];
    double2 *from = both, *to = both + n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) from[i] = in[blockIdx.x * n + i];
    for (int half = n / 2, width = 1; half; half /= 2, width *= 2) {
        __syncthreads();
        for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
            int p = i / width, q = i % width;
            double sine, cosine;
            sincospi(-2.0 * p * width / n, &sine, &cosine);
            double2 a = from[q + width * p], b = from[q + width * (p + half)];
            double2 d = make_double2(a.x - b.x, a.y - b.y);
            to[q + width * 2 * p] = make_double2(a.x + b.x, a.y + b.y);
            to[q + width * (2 * p + 1)] = make_double2(d.x * cosine - d.y * sine, d.x * sine + d.y * cosine);
        }
        double2 *t = from;
        from = to;
        to = t;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[blockIdx.x * n + i] = from[i];
}

// Radix four in the same way; n is a power of four, 16 n bytes.
extern "C" __global__ void radix_4(const float2 *in, float2 *out, int n)
{
    extern __shared__ float2 pair[];
    float2 *from = pair, *to = pair + n;
    for (int i = threadIdx.x; i < n; i += blockDim.x) from[i] = in[blockIdx.x * n + i];
    for (int quarter = n / 4, width = 1; quarter; quarter /= 4, width *= 4) {
        __syncthreads();
        for (int i = threadIdx.x; i < n / 4; i += blockDim.x) {
            int p = i / width, q = i % width;
            float2 v[4], w = turn(-6.2831853f * p * width / n), w2 = times(w, w);
            for (int k = 0; k < 4; k++) v[k] = from[q + width * (p + k * quarter)];
            float2 a = make_float2(v[0].x + v[2].x, v[0].y + v[2].y), b = make_float2(v[0].x - v[2].x, v[0].y - v[2].y);
            float2 c = make_float2(v[1].x + v[3].x, v[1].y + v[3].y), d = make_float2(v[1].y - v[3].y, v[3].x - v[1].x);
            float2 *at = to + q + width * 4 * p;
            at[0] = make_float2(a.x + c.x, a.y + c.y);
            at[width] = times(w, make_float2(b.x + d.x, b.y + d.y));
            at[2 * width] = times(w2, make_float2(a.x - c.x, a.y - c.y));
            at[3 * width] = times(times(w, w2), make_float2(b.x - d.x, b.y - d.y));
        }
        float2 *t = from;
        from = to;
        to = t;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[blockIdx.x * n + i] = from[i];
}

// The cosine transform of 8 x 8 points by rows and columns, a thread a row, four tiles a block; and back.
extern "C" __global__ void cosine_8(const float *in, float *out, float *back, int tiles)
{
    __shared__ float tile[4][8][9];
    int t = threadIdx.y, r = threadIdx.x, at = blockIdx.x * 4 + t;
    float row[8], result[8];
    if (at < tiles)
        for (int k = 0; k < 8; k++) row[k] = in[at * 64 + r * 8 + k];
    for (int pass = 0; pass < 4; pass++) {
        for (int u = 0; u < 8; u++) {
            float sum = 0;
            for (int k = 0; k < 8; k++) {
                int from = pass < 2 ? k : u, to = pass < 2 ? u : k;
                float scale = to == 0 ? 0.35355339f : 0.5f;
                sum += scale * row[k] * cosf(0.19634954f * ((2 * from + 1) * to));
            }
            result[u] = sum;
        }
        __syncthreads();
        for (int k = 0; k < 8; k++) tile[t][r][k] = result[k];
        __syncthreads();
        for (int k = 0; k < 8; k++) row[k] = tile[t][k][r];  // turned
        if (at < tiles && pass == 1)
            for (int k = 0; k < 8; k++) out[at * 64 + r * 8 + k] = row[k];
    }
    if (at < tiles)
        for (int k = 0; k < 8; k++) back[at * 64 + r * 8 + k] = row[k];
}

// Walsh and Hadamard: within a warp by shuffles, then across warps in shared memory. A block of a power of two threads.
extern "C" __global__ void walsh(const int *in, int *out)
{
    extern __shared__ int row[];
    int id = threadIdx.x, v = in[blockIdx.x * blockDim.x + id];
    unsigned mask = blockDim.x >= 32 ? ~0u : (1u << blockDim.x) - 1;
    for (int step = 1; step < min(32, blockDim.x); step *= 2) {
        int other = __shfl_xor_sync(mask, v, step);
        v = id & step ? other - v : v + other;
    }
    for (int step = 32; step < blockDim.x; step *= 2) {
        row[id] = v;
        __syncthreads();
        int other = row[id ^ step];
        v = id & step ? other - v : v + other;
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + id] = v;
}

// Haar's wavelets in place of a row in shared memory; n is a power of two.
extern "C" __global__ void haar(const float *in, float *out, int n)
{
    extern __shared__ float line[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) line[i] = in[blockIdx.x * n + i];
    __syncthreads();
    for (int length = n; length > 1; length /= 2) {
        float sums[8], differences[8];
        int count = 0;
        for (int i = threadIdx.x; i < length / 2; i += blockDim.x, count++) {
            sums[count] = (line[2 * i] + line[2 * i + 1]) * 0.70710678f;
            differences[count] = (line[2 * i] - line[2 * i + 1]) * 0.70710678f;
        }
        __syncthreads();
        count = 0;
        for (int i = threadIdx.x; i < length / 2; i += blockDim.x, count++) {
            line[i] = sums[count];
            line[length / 2 + i] = differences[count];
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[blockIdx.x * n + i] = line[i];
}

// Numbers modulo 998244353, powers of a root instead of turns: a cyclic convolution of two rows of n, a block.
__device__ unsigned mod_times(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b % 998244353u); }

__device__ unsigned mod_power(unsigned base, unsigned exponent)
{
    unsigned result = 1;
    for (; exponent; exponent >>= 1, base = mod_times(base, base))
        if (exponent & 1) result = mod_times(result, base);
    return result;
}

__device__ void number_transform(unsigned *v, int n, unsigned root)
{
    for (int length = n; length > 1; length /= 2, root = mod_times(root, root)) {
        for (int i = threadIdx.x; i < n / 2; i += blockDim.x) {
            int k = i % (length / 2), at = i / (length / 2) * length + k;
            unsigned a = v[at], b = v[at + length / 2];
            v[at] = a + b >= 998244353u ? a + b - 998244353u : a + b;
            v[at + length / 2] = mod_times(a >= b ? a - b : a + 998244353u - b, mod_power(root, k));
        }
        __syncthreads();
    }
}

extern "C" __global__ void exact_convolution(const unsigned *a, const unsigned *b, unsigned *out, int bits)
{
    extern __shared__ unsigned values[];
    int n = 1 << bits;
    unsigned *x = values, *y = values + n, root = mod_power(3, 998244352u >> bits);
    for (int i = threadIdx.x; i < n; i += blockDim.x) { x[i] = a[i]; y[i] = b[i]; }
    __syncthreads();
    number_transform(x, n, root);
    number_transform(y, n, root);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        int turned = bits ? __brev(i) >> (32 - bits) : 0;
        unsigned product = mod_times(x[turned], y[turned]);
        __syncwarp(__activemask());
        x[turned] = product;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = bits ? x[__brev(i) >> (32 - bits)] : x[0];
    __syncthreads();
    number_transform(y, n, mod_power(root, 998244351u));
    unsigned scale = mod_power(n, 998244351u);
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = mod_times(y[bits ? __brev(i) >> (32 - bits) : 0], scale);
}

// One tone of each row by Goertzel's recurrence, a thread a tone.
extern "C" __global__ void tones(const float *in, double2 *out, int n, int count)
{
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= count) return;
    double sine, cosine, one = 0, two = 0;
    sincospi(2.0 * k / n, &sine, &cosine);
    for (int i = 0; i < n; i++) {
        double now = in[i] + 2 * cosine * one - two;
        two = one;
        one = now;
    }
    out[k] = make_double2(one * cosine - two, one * sine);
}
