// What CUDA C can ask for, opcode by opcode: only compiled and read, never run.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct Record { int a; double b; char c[5]; u16 d; };

__constant__ float table[16] = {1, 2, 3, 4.5f};
__constant__ Record records[3] = {{1, 2.0, "abc", 4}, {5, 6, "de", 7}};
__device__ int counter = 5;
__device__ int *pointers[3] = {&counter, &counter + 1, 0};
__device__ u8 bytes[10] = {1, 2, 3, 255};
__device__ double doubles[2] = {1.5, -0.0};
__device__ const char *strings[2] = {"hello", "worldwide"};

extern "C" __global__ void integers(int *a, u32 *b, i64 *c, u64 *d, u8 *e, u16 *f, signed char *g, short *h, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    a[i] = a[i] / n + a[i] % 7 - abs(a[i]) + min(a[i], n) * max(a[i], 3);
    b[i] = b[i] / n + b[i] % 7 + umin(b[i], n) + __umulhi(b[i], n) + __mul24(a[i], n) + __umul24(b[i], n);
    b[i] += __sad(a[i], n, 3u) + __usad(b[i], n, 3u);
    c[i] = c[i] / n + c[i] % 7 + llabs(c[i]) + __mul64hi(c[i], n);
    d[i] = d[i] / n + d[i] % 7 + __umul64hi(d[i], n) + __popcll(d[i]) + __clzll(d[i]) + __ffsll(c[i]) + __brevll(d[i]);
    e[i] = e[i] / 3 + g[i] * h[i];
    f[i] = f[i] / 5 - h[i];
    g[i] = g[i] >> 1;
    h[i] = h[i] / g[i];
    b[i] += __popc(a[i]) + __clz(a[i]) + __ffs(a[i]) + __brev(a[i]) + __byte_perm(a[i], b[i], 0x1234);
    b[i] += __funnelshift_l(a[i], b[i], n) + __funnelshift_rc(a[i], b[i], n);
    b[i] += __hadd(a[i], n) + __rhadd(a[i], n) + __uhadd(b[i], n);
    b[i] = (b[i] & a[i]) | (~b[i] ^ n);
    a[i] = __dp4a(a[i], n, 5) + __dp2a_lo(a[i], n, 5) + __dp4a(b[i], (u32)n, 5u);
    b[i] = (b[i] << n) | (b[i] >> (32 - n));
    d[i] = d[i] << n >> 3;
    c[i] = c[i] >> n;
    a[i] += counter + *pointers[i & 1] + records[i % 3].a + records[i % 3].c[2] + bytes[i % 10] + strings[i & 1][2];
    counter = i;
    if ((a[i] > 3 && b[i] < 5) || c[i] != 0) a[i] = 0;
    bool p = a[i] > 0, q = b[i] > 3;
    e[i] = p ^ q;
    u32 low, high;
    asm("add.cc.u32 %0, %2, %3; addc.u32 %1, %2, %3;" : "=r"(low), "=r"(high) : "r"(n), "r"(i));
    a[i] += low ^ high;
}

extern "C" __global__ void floats(float *a, double *b, int *c, i64 *d, u64 *u, u8 *e, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float x = a[i];
    double y = b[i];
    a[i] = sinf(x) + cosf(x) + tanf(x) + expf(x) + logf(x) + powf(x, 2.5f) + sqrtf(x) + rsqrtf(x) + tanhf(x) + erff(x);
    a[i] += fmodf(x, 3.f) + atan2f(x, 2.f) + floorf(x) + ceilf(x) + rintf(x) + truncf(x) + roundf(x) + fabsf(x);
    a[i] += copysignf(x, -1.f) + fmaxf(x, 1.f) + fminf(x, 2.f) + ldexpf(x, 3) + frexpf(x, c + i) + modff(x, a + i + 1);
    b[i] = sin(y) + exp(y) + log(y) + pow(y, 2.5) + sqrt(y) + rsqrt(y) + fmod(y, 3.) + floor(y) + rint(y) + round(y);
    b[i] += fma(y, y, y) + y / 3.0 + 1.0 / y + fmax(y, 1.);
    a[i] += __fadd_rz(x, 1.f) + __fadd_rd(x, 1.f) + __fadd_ru(x, 1.f) + __fmul_rz(x, x) + __fmaf_rz(x, x, x);
    a[i] += __fmaf_ru(x, x, x) + __fdiv_rz(x, 3.f) + __frcp_rn(x) + __frcp_ru(x) + __fsqrt_rz(x) + __frsqrt_rn(x);
    a[i] += __saturatef(x) + __expf(x) + __sinf(x) + __logf(x) + __powf(x, x) + __fdividef(x, 3.f) + __tanf(x);
    b[i] += __dadd_rz(y, 1.) + __dmul_ru(y, y) + __fma_rd(y, y, y) + __ddiv_rz(y, 3.) + __drcp_ru(y) + __dsqrt_rd(y);
    c[i] = __float2int_rn(x) + __float2int_rz(x) + __float2int_rd(x) + __float2int_ru(x) + __double2int_rn(y) + (int)y;
    c[i] += __float2uint_rn(x) + __float_as_int(x) + __double2hiint(y) + __double2loint(y);
    c[i] += isnan(x) + isinf(y) + isfinite(x) + signbit(x) + ilogbf(x);
    d[i] = (i64)x + (i64)y + __double2ll_rn(y) + __float2ll_ru(x) + llrint(y);
    u[i] = (u64)x + (u64)y + __double_as_longlong(y);
    a[i] += (float)d[i] + (float)u[i] + (float)c[i] + (float)(u32)c[i] + __int2float_rz(c[i]) + __ll2float_ru(d[i]);
    a[i] += (float)y + __double2float_rz(y) + __int_as_float(c[i]) + (float)e[i] + __uint2float_rd(c[i]);
    b[i] += (double)d[i] + (double)u[i] + (double)c[i] + x + __ull2double_rz(u[i]) + __hiloint2double(c[i], c[i]);
    e[i] = (u8)x;
    a[i] += table[i & 15] + table[3] + (float)doubles[i & 1];
}

extern "C" __global__ void flow(int *a, const float4 *__restrict__ v, float2 *w, int n, Record s)
{
    int own[20], i = threadIdx.x;
    for (int k = 0; k < 20; k++) own[k] = a[k];
    for (int k = 0; k < n; k++) own[a[k] % 20] += k;
    switch (a[i]) {
    case 0: a[i] = own[1]; break;
    case 1: a[i] = own[2] * 2; break;
    case 2: a[i] = n; break;
    case 3: a[i] += 3; break;
    case 4: a[i] = n / 3; break;
    case 5: a[i] -= 77; break;
    case 6: a[i] *= 9; break;
    default: a[i] = own[i % 20];
    }
    float4 t = v[i];
    w[i] = make_float2(t.x + t.y, t.z * t.w);
    while (a[i] > 0) {
        a[i] -= 3;
        if (a[i] == 5) break;
        if (a[i] == 7) continue;
        a[i]--;
    }
    a[i] += s.a + s.c[i % 5];
    if (n == -1) __trap();
    if (n == -2) asm("brkpt;");
    if (n == -3) asm("exit;");
    a[i] += __isGlobal(a) + __isLocal(own) + __isConstant(table) + clock() + (int)clock64();
    __threadfence();
    __threadfence_block();
    __threadfence_system();
    __nanosleep(10);
    __prof_trigger(3);
    do {
        a[i]++;
        for (int k = 0; k < a[i]; k++)
            if (own[k % 20] == 3) goto out;
    } while (a[i] < 100);
out:
    volatile int *plain = a;
    plain[0] = plain[1];
    a[i] += __ldg(a + 2) + __ldcg(a + 3) + __ldcs(a + 4) + __ldlu(a + 5) + __ldcv(a + 6);
    __stwb(a, 1);
    __stcg(a + 1, 2);
    __stcs(a + 2, 1);
    __stwt(a + 3, 4);
    u32 multiprocessor;
    asm("mov.u32 %0, %%smid;" : "=r"(multiprocessor));
    a[i] += multiprocessor;
}

extern "C" __global__ void together(int *a, float *f, double *d, u64 *u, u32 *b, short *h)
{
    __shared__ int s[64];
    extern __shared__ int dynamic[];
    int i = threadIdx.x, all;
    s[i] = a[i];
    __syncthreads();
    dynamic[i] = s[63 - i];
    __syncwarp();
    a[i] = dynamic[i] + __syncthreads_count(a[i]) + __syncthreads_and(a[i]) + __syncthreads_or(a[i]);
    atomicAdd(a, 1), atomicAdd(f, 1.f), atomicAdd(d, 1.0), atomicAdd(u, 1ull), atomicSub(a, 1);
    atomicExch(a, 1), atomicExch(f, 1.f), atomicMin(a, 1), atomicMax(b, 1u), atomicInc(b, 1u), atomicDec(b, 5u);
    atomicCAS(a, 1, 2), atomicCAS(u, 1ull, 2ull), atomicAnd(a, 1), atomicOr(u, 1ull), atomicXor(b, 1u);
    atomicMax((i64 *)u, 1ll), atomicAdd_system(a, 1), atomicAdd_block(a, 2);
    f[1] = atomicAdd(f, 1.f);
    a[1] = atomicCAS(a, 1, 2);
    h[0] = atomicCAS((u16 *)h, 1, 2);
    s[2] = atomicExch(s + 1, i) + atomicAdd(s + i, 1);
    a[i] = __shfl_sync(~0u, a[i], 3) + __shfl_up_sync(~0u, a[i], 1) + __shfl_down_sync(~0u, a[i], 1);
    a[i] += __shfl_xor_sync(~0u, a[i], 1) + __ballot_sync(~0u, a[i]) + __any_sync(~0u, a[i]) + __all_sync(~0u, a[i]);
    a[i] += __match_any_sync(~0u, a[i]) + __match_all_sync(~0u, a[i], &all) + all + __activemask();
#if __CUDA_ARCH__ >= 800
    a[i] += __reduce_add_sync(~0u, a[i]) + __reduce_or_sync(~0u, b[i]);
    u32 place = __cvta_generic_to_shared(s);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(place), "l"(a));
    asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;\ncp.async.wait_all;");
#endif
    d[i] = __shfl_down_sync(~0u, d[i], 2);
    asm volatile("barrier.sync 1;\nbar.arrive 1, 64;\nbar.sync 1, 64;");
}

__device__ __noinline__ int helper(int x, float *y)
{
    y[0] += x;
    return x * 3 + (int)y[1];
}
typedef int (*Helper)(int, float *);
__device__ Helper helpers[2] = {helper, helper};

struct Base { virtual __device__ int of(int x) { return x; } };
struct Derived : Base { virtual __device__ int of(int x) override { return x * 2; } };

__device__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

extern "C" int printf(const char *, ...);
extern "C" __global__ void __launch_bounds__(128, 2) calls(int *a, float *y, int k)
{
    a[0] = helper(a[1], y);
    a[1] = helpers[k](k, y);
    printf("hi %d %f\n", a[0], y[0]);
    Derived derived;
    Base *base = k ? (Base *)&derived : new Base;
    a[3] = base->of(k);
    a[4] = fibonacci(k);
    free(malloc(4));
}
