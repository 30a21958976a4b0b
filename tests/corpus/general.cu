// Kernels without barriers, shared memory, warp operations or atomics: one for each thing such code does.
// NVRTC made general.ptx from this: compute_80.

struct Camera { float x, y, scale; int width; short steps; char flags[6]; };

__constant__ float weights[9] = {1, 2, 1, 2, 4, 2, 1, 2, 1};
__device__ int primes[8] = {2, 3, 5, 7, 11, 13, 17, 19};
__device__ int calls;

// Divergent loops with a break, and a struct by value.
extern "C" __global__ void mandelbrot(int *out, Camera camera, int height)
{
    int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
    if (px >= camera.width || py >= height) return;
    float cx = camera.x + px * camera.scale, cy = camera.y + py * camera.scale, x = 0, y = 0;
    int n = 0;
    for (; n < camera.steps; n++) {
        float xx = __fmul_rn(x, x), yy = __fmul_rn(y, y);
        if (__fadd_rn(xx, yy) > 4.0f) break;
        y = __fadd_rn(__fmul_rn(__fmul_rn(2.0f, x), y), cy);
        x = __fadd_rn(__fadd_rn(xx, -yy), cx);
    }
    out[py * camera.width + px] = camera.flags[2] ? n : -n;
}

// Nested loops over constant memory, clamped edges.
extern "C" __global__ void blur(const float *in, float *out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    float sum = 0;
    for (int j = -1; j <= 1; j++)
        for (int i = -1; i <= 1; i++) {
            int a = min(max(x + i, 0), width - 1), b = min(max(y + j, 0), height - 1);
            sum = __fmaf_rn(in[b * width + a], weights[(j + 1) * 3 + i + 1], sum);
        }
    out[y * width + x] = sum * 0.0625f;
}

extern "C" __global__ void matmul(const double *a, const double *b, double *c, int m, int n, int k)
{
    for (int cell = blockIdx.x * blockDim.x + threadIdx.x; cell < m * n; cell += gridDim.x * blockDim.x) {
        double sum = 0;
        for (int i = 0; i < k; i++) sum = fma(a[cell / n * k + i], b[i * n + cell % n], sum);
        c[cell] = sum;
    }
}

// A local array with a running index, sorted: loops, local loads and stores.
extern "C" __global__ void sort16(unsigned short *data, int rows)
{
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    unsigned short kept[16];
    for (int i = 0; i < 16; i++) kept[i] = data[row * 16 + i];
    for (int i = 1; i < 16; i++) {
        unsigned short value = kept[i];
        int j = i - 1;
        while (j >= 0 && kept[j] > value) { kept[j + 1] = kept[j]; j--; }
        kept[j + 1] = value;
    }
    for (int i = 0; i < 16; i++) data[row * 16 + i] = kept[i];
}

// A branch table, statics, and exits from several places.
extern "C" __global__ void dispatch(const int *op, long long *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long value = i * 1000003LL;
    switch (op[i]) {
    case 0: value += primes[i & 7]; break;
    case 1: value -= primes[(i >> 3) & 7];
    case 2: value *= 3; break;
    case 3: value /= primes[i & 7]; break;
    case 4: value %= 1 + i; break;
    case 5: out[i] = -1; return;
    case 6: value = value << (i & 63); break;
    case 7: value = value >> (i & 63); break;
    case 8: value = __popcll(value) * 100 + __clzll(value); break;
    case 9: value = __mul64hi(value << 30, value << 20); break;
    case 10: { for (int k = 0; k < i % 7; k++) { if (value & 1) value = 3 * value + 1; else value >>= 1; } break; }
    default: calls++; value = ~value;
    }
    out[i] = value;
}

// Hashing: 8- and 64-bit integers, a do-while, funnel shifts.
extern "C" __global__ void fnv(const unsigned char *text, const int *starts, unsigned long long *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long hash = 14695981039346656037ULL;
    int at = starts[i];
    unsigned char c;
    do {
        c = text[at++];
        hash = (hash ^ c) * 1099511628211ULL;
        hash ^= (unsigned long long)__funnelshift_l((unsigned)hash, (unsigned)(hash >> 32), c & 31) << 7;
    } while (c != 0);
    out[i] = hash;
}

// Vector loads and stores, all signs and widths of conversions.
extern "C" __global__ void convert(const int4 *in, float4 *out, short4 *narrow, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int4 v = in[i];
    out[i] = make_float4((float)v.x, (float)(unsigned)v.y, (float)(signed char)v.z, (float)(unsigned short)v.w);
    narrow[i] = make_short4((short)v.x, (short)(v.y >> 16), (signed char)v.z, (short)(int)(v.w * 0.5));
}

// A pointer to local memory that one of two ways leads to: generic addresses.
extern "C" __global__ void either(int *data, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int own[4] = {i, i + 1, i + 2, i + 3};
    int *where = data[i] & 1 ? own : data + 4 * (i / 4);
    int sum = 0;
    for (int k = 0; k < (data[i] & 3) + 1; k++) sum += where[k];
    data[n + i] = sum;
}
