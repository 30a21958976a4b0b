// One element at a time: vectors, strides, small types, doubles, conversions.

// a x + y by fours, the rest one by one.
extern "C" __global__ void axpy_by_fours(const float4 *x, float4 *y, float a, int n)
{
    int all = gridDim.x * blockDim.x, id = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = id; i < n / 4; i += all) {
        float4 v = x[i], w = y[i];
        w.x += a * v.x; w.y += a * v.y; w.z += a * v.z; w.w += a * v.w;
        y[i] = w;
    }
    for (int i = n / 4 * 4 + id; i < n; i += all) ((float *)y)[i] += a * ((const float *)x)[i];
}

// Steps of any size and sign, counted in elements.
extern "C" __global__ void strided(const float *in, float *out, long long in_step, long long out_step, int n)
{
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i * out_step] = in[i * in_step] * 2 + 1;
}

// Four bytes at a time: averages, and sums that stop at 255.
extern "C" __global__ void blend(const uchar4 *a, const uchar4 *b, uchar4 *average, uchar4 *sum, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    uchar4 p = a[i], q = b[i];
    average[i] = make_uchar4((p.x + q.x) / 2, (p.y + q.y) / 2, (p.z + q.z) / 2, (p.w + q.w) / 2);
    sum[i] = make_uchar4(min(p.x + q.x, 255), min(p.y + q.y, 255), min(p.z + q.z, 255), min(p.w + q.w, 255));
}

// Products of fractions of 15 bits, rounded and kept in range, as sound is mixed.
extern "C" __global__ void fractions(const short *a, const short *b, short *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int product = (a[i] * b[i] + 0x4000) >> 15;
    int sum = product + a[i];
    out[i] = (short)max(-32768, min(32767, sum));
}

// To eight bits and back.
extern "C" __global__ void quantise(const float *x, signed char *low, float *back, float scale, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int level = __float2int_rn(x[i] / scale);
    low[i] = (signed char)(level < -127 ? -127 : level > 127 ? 127 : level);
    back[i] = low[i] * scale;
}

// A polynomial, a root and a quotient of doubles.
extern "C" __global__ void polynomial(const double *x, double *y, const double *factors, int degree, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i], sum = factors[degree];
    for (int k = degree - 1; k >= 0; k--) sum = sum * v + factors[k];
    y[i] = sqrt(fabs(sum)) / (1 + v * v);
}

// a times the conjugate of b, and the size of a.
extern "C" __global__ void conjugates(const float2 *a, const float2 *b, float2 *out, float *size, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 p = a[i], q = b[i];
    out[i] = make_float2(p.x * q.x + p.y * q.y, p.y * q.x - p.x * q.y);
    size[i] = sqrtf(p.x * p.x + p.y * p.y);
}

// Pictures of three bytes a point; rows have a pitch.
extern "C" __global__ void grey(const uchar3 *in, unsigned char *out, int width, int height, int pitch)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    uchar3 p = in[y * width + x];
    out[y * pitch + x] = (p.x * 77 + p.y * 150 + p.z * 29) >> 8;
}

// Every conversion of a double to an integer.
extern "C" __global__ void to_integers(const double *x, long long *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i];
    long long *to = out + 10 * i;
    to[0] = __double2int_rz(v);
    to[1] = __double2uint_rz(v);
    to[2] = __double2ll_rz(v);
    to[3] = (long long)__double2ull_rz(v);
    to[4] = __double2int_rn(v);
    to[5] = __double2int_ru(v);
    to[6] = __double2int_rd(v);
    to[7] = __float2int_rz((float)v);
    to[8] = (short)__double2int_rz(v);
    to[9] = __double2ll_rn(v);
}

// Every conversion of an integer to floating point.
extern "C" __global__ void from_integers(const long long *x, double *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long v = x[i];
    double *to = out + 8 * i;
    to[0] = (double)v;
    to[1] = (double)(unsigned long long)v;
    to[2] = (float)v;
    to[3] = (float)(unsigned long long)v;
    to[4] = (float)(int)v;
    to[5] = (float)(unsigned)v;
    to[6] = (double)(signed char)v;
    to[7] = __ll2float_rz(v);
}

// Signs, rounding and remainders of doubles.
extern "C" __global__ void roundings(const double *x, const double *y, double *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double a = x[i], b = y[i];
    double *to = out + 10 * i;
    to[0] = copysign(a, b);
    to[1] = fmin(a, b);
    to[2] = fmax(a, b);
    to[3] = trunc(a);
    to[4] = rint(a);
    to[5] = floor(a) - ceil(b);
    to[6] = fmod(a, b);
    to[7] = fdim(a, b);
    to[8] = round(a);
    to[9] = fma(a, b, -a);
}

// A box of numbers in a larger one, by grids and blocks of three dimensions.
extern "C" __global__ void box(const int *in, int *out, int3 size, int3 from, int2 pitch)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x >= size.x || y >= size.y || z >= size.z) return;
    out[(z * size.y + y) * size.x + x] = in[((z + from.z) * pitch.y + y + from.y) * pitch.x + x + from.x];
}
