// Arithmetic on floats.

// Radix 2, decimation in time, in shared memory: size = 2 * blockDim.x, a power of two; one block a row.
extern "C" __global__ void fft(float2 *data, int bits)
{
    extern __shared__ float2 row[];
    int size = 1 << bits;
    data += blockIdx.x * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) row[__brev(i) >> (32 - bits)] = data[i];
    __syncthreads();
    for (int half = 1; half < size; half *= 2) {
        for (int i = threadIdx.x; i < size / 2; i += blockDim.x) {
            int k = i % half, a = i / half * 2 * half + k, b = a + half;
            float s, c;
            sincospif(-(float)k / half, &s, &c);
            float2 u = row[a], v = row[b];
            float re = v.x * c - v.y * s, im = v.x * s + v.y * c;
            row[a] = make_float2(u.x + re, u.y + im);
            row[b] = make_float2(u.x - re, u.y - im);
        }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < size; i += blockDim.x) data[i] = row[i];
}

// Bodies by tiles in shared memory.
extern "C" __global__ void nbody(const float4 *bodies, float3 *forces, int n, float softening)
{
    extern __shared__ float4 tile[];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float4 me = i < n ? bodies[i] : make_float4(0, 0, 0, 0);
    float3 sum = make_float3(0, 0, 0);
    for (int base = 0; base < n; base += blockDim.x) {
        if (base + threadIdx.x < n) tile[threadIdx.x] = bodies[base + threadIdx.x];
        __syncthreads();
        int count = min((int)blockDim.x, n - base);
        for (int j = 0; j < count; j++) {
            float dx = tile[j].x - me.x, dy = tile[j].y - me.y, dz = tile[j].z - me.z;
            float inverse = rsqrtf(dx * dx + dy * dy + dz * dz + softening);
            float pull = tile[j].w * inverse * inverse * inverse;
            sum.x += dx * pull;
            sum.y += dy * pull;
            sum.z += dz * pull;
        }
        __syncthreads();
    }
    if (i < n) forces[i] = sum;
}

__device__ float normal(float x) { return 0.5f * (1 + erff(x * 0.70710678f)); }

extern "C" __global__ void black_scholes(const float *price, const float *strike, const float *years, float *calls,
                                         float *puts, float rate, float volatility, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float root = sqrtf(years[i]);
        float d1 = (logf(price[i] / strike[i]) + (rate + 0.5f * volatility * volatility) * years[i]) / (volatility * root);
        float d2 = d1 - volatility * root, discounted = strike[i] * expf(-rate * years[i]);
        calls[i] = price[i] * normal(d1) - discounted * normal(d2);
        puts[i] = discounted * normal(-d2) - price[i] * normal(-d1);
    }
}

// Rounded as written, so that counts are exact.
extern "C" __global__ void mandelbrot(unsigned short *out, int width, int height, double left, double top, double step,
                                      int most)
{
    int px = blockIdx.x * blockDim.x + threadIdx.x, py = blockIdx.y * blockDim.y + threadIdx.y;
    if (px >= width || py >= height) return;
    double cx = __dadd_rn(left, __dmul_rn(px, step)), cy = __dadd_rn(top, __dmul_rn(py, step)), x = 0, y = 0;
    int n = 0;
    while (n < most) {
        double xx = __dmul_rn(x, x), yy = __dmul_rn(y, y);
        if (__dadd_rn(xx, yy) > 4) break;
        y = __dadd_rn(__dmul_rn(2 * x, y), cy);
        x = __dadd_rn(__dadd_rn(xx, -yy), cx);
        n++;
    }
    out[py * width + px] = n;
}

// Functions of one number, chosen by number.
extern "C" __global__ void functions(const float *x, float *y, int n, int which)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i], r;
    switch (which) {
    case 0: r = expf(v); break;
    case 1: r = logf(fabsf(v) + 0.25f); break;
    case 2: r = exp2f(v); break;
    case 3: r = log2f(fabsf(v) + 0.25f); break;
    case 4: r = cbrtf(v); break;
    case 5: r = hypotf(v, 3.0f); break;
    case 6: r = atan2f(v, 2.0f); break;
    case 7: r = asinf(v / 16); break;
    case 8: r = sinhf(v); break;
    case 9: r = erfcf(v); break;
    case 10: r = powf(fabsf(v) + 0.5f, 1.7f); break;
    case 11: r = rintf(v * 4) + floorf(v) + ceilf(v) + truncf(v) + roundf(v); break;
    case 12: r = fmodf(v, 1.3f); break;
    case 13: r = sqrtf(fabsf(v)) / (1 + v * v); break;
    default: r = log1pf(fabsf(v)); break;
    }
    y[i] = r;
}

extern "C" __global__ void functions_double(const double *x, double *y, int n, int which)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i], r;
    switch (which) {
    case 0: r = exp(v); break;
    case 1: r = log(fabs(v) + 0.25); break;
    case 2: r = sqrt(fabs(v)) / (1 + v * v); break;
    case 3: r = tanh(v); break;
    case 4: r = erf(v); break;
    case 5: r = atan(v); break;
    case 6: r = rint(v * 4) + floor(v) + ceil(v) + trunc(v); break;
    default: r = cbrt(v); break;
    }
    y[i] = r;
}

// Newton's method with a loop that each thread leaves when its own root is found.
extern "C" __global__ void newton(const float *x, float *y, int *rounds, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float target = x[i], guess = target > 1 ? target : 1;
    int round = 0;
    for (; round < 60; round++) {
        float next = 0.5f * (guess + target / guess);
        if (fabsf(next - guess) <= 1e-6f * guess) break;
        guess = next;
    }
    y[i] = guess;
    rounds[i] = round;
}
