// Half precision by inline PTX: the compiler's headers are not installed everywhere.

typedef unsigned short half;
typedef unsigned half2;

__device__ half2 fma2(half2 a, half2 b, half2 c)
{
    half2 r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
__device__ half from_float(float v) { half r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(v)); return r; }
__device__ float to_float(half v) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(v)); return r; }

// Pairs of halves: a x + y, then the larger of that and y, then the difference to x.
extern "C" __global__ void pairs(const half2 *x, const half2 *y, half2 *out, half2 a, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    half2 r = fma2(a, x[i], y[i]);
    asm("max.f16x2 %0, %1, %2;" : "=r"(r) : "r"(r), "r"(y[i]));
    asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(r), "r"(x[i]));
    out[i] = r;
}

// A dot product of halves in f32, one warp a row.
extern "C" __global__ void half_dot(const half *a, const half *b, half *out, int columns)
{
    float sum = 0;
    for (int i = threadIdx.x; i < columns; i += 32)
        sum += to_float(a[blockIdx.x * columns + i]) * to_float(b[blockIdx.x * columns + i]);
    for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    if (threadIdx.x == 0) out[blockIdx.x] = from_float(sum);
}

// To bf16 and back, by the conversion and by hand.
extern "C" __global__ void bfloat(const float *x, unsigned short *out, float *back, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned short r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x[i]));
    out[i] = r;
    back[i] = __int_as_float((unsigned)r << 16);
}

// 16x8 tiles of C = A B, a warp each, with m16n8k16 on halves and f32 sums. A: m x k, B: k x n; whole tiles.
extern "C" __global__ void mma_f16(const half *a, const half *b, float *c, int n, int k)
{
    int lane = threadIdx.x & 31, group = lane >> 2, pair = lane & 3;
    int row = blockIdx.y * 16 + group, column = blockIdx.x * 8;
    float d[4] = {};
    for (int base = 0; base < k; base += 16) {
        unsigned fa[4], fb[2];
        for (int r = 0; r < 4; r++)
            fa[r] = *(const unsigned *)(a + (row + (r & 1) * 8) * k + base + pair * 2 + (r >> 1) * 8);
        for (int r = 0; r < 2; r++) {
            int s = base + pair * 2 + r * 8;
            fb[r] = b[s * n + column + group] | (unsigned)b[(s + 1) * n + column + group] << 16;
        }
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                     "{%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    }
    for (int r = 0; r < 4; r++) c[(row + (r >> 1) * 8) * n + column + pair * 2 + (r & 1)] = d[r];
}

// The same tile by ldmatrix from shared memory that cp.async filled. One warp, one 16x16 by 16x8 product.
extern "C" __global__ void mma_shared(const half *a, const half *b, float *c)
{
    __shared__ __align__(16) half tile_a[16 * 16];
    __shared__ __align__(16) half tile_b[16 * 8];
    int lane = threadIdx.x;
    a += blockIdx.x * 256;
    b += blockIdx.x * 128;
    c += blockIdx.x * 128;
    unsigned to_a = (unsigned)__cvta_generic_to_shared(tile_a), to_b = (unsigned)__cvta_generic_to_shared(tile_b);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to_a + lane * 16), "l"(a + lane * 8));
    if (lane < 16) asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to_b + lane * 16), "l"(b + lane * 8));
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncwarp();
    unsigned fa[4], fb[2];
    unsigned at = to_a + ((lane & 15) * 16 + (lane >> 4) * 8) * 2;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(fb[0]), "=r"(fb[1]) : "r"(to_b + (lane & 15) * 16));
    float d[4] = {};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    for (int r = 0; r < 4; r++) c[((lane >> 2) + (r >> 1) * 8) * 8 + (lane & 3) * 2 + (r & 1)] = d[r];
}

// Sums of pairs of halves by atomics.
extern "C" __global__ void half_atomics(half2 *pair, half *one, const half2 *in, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    half2 old;
    half was;
    asm volatile("atom.global.add.noftz.f16x2 %0, [%1], %2;" : "=r"(old) : "l"(pair), "r"(in[i]) : "memory");
    asm volatile("atom.global.add.noftz.f16 %0, [%1], %2;" : "=h"(was) : "l"(one), "h"((half)in[i]) : "memory");
}
