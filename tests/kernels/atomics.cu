// Every atomic operation, on global and on shared memory, with and without use of what it returns.

#define BOTH(NAME, TYPE, CALL)                                                                     \
    extern "C" __global__ void NAME(TYPE *cells, const TYPE *in, TYPE *old, TYPE *shared_out, int cell_count, int n) \
    {                                                                                                     \
        __shared__ TYPE near_cells[16];                                                                        \
        if (threadIdx.x == 0)                                                                             \
            for (int i = 0; i < 16; i++) near_cells[i] = shared_out[i];                                        \
        __syncthreads();                                                                                  \
        int i = blockIdx.x * blockDim.x + threadIdx.x;                                                    \
        if (i < n) {                                                                                      \
            TYPE value = in[i];                                                                           \
            { TYPE *at = cells + i % cell_count; old[i] = CALL; }                                         \
            { TYPE *at = near_cells + i % 16; CALL; }                                                          \
        }                                                                                                 \
        __syncthreads();                                                                                  \
        if (threadIdx.x == 0 && blockIdx.x == gridDim.x - 1)                                              \
            for (int j = 0; j < 16; j++) shared_out[j] = near_cells[j];                                        \
    }

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

BOTH(add_s32, int, atomicAdd(at, value))
BOTH(add_u32, u32, atomicAdd(at, value))
BOTH(add_u64, u64, atomicAdd(at, value))
BOTH(add_f32, float, atomicAdd(at, value))
BOTH(add_f64, double, atomicAdd(at, value))
BOTH(sub_s32, int, atomicSub(at, value))
BOTH(min_s32, int, atomicMin(at, value))
BOTH(min_u32, u32, atomicMin(at, value))
BOTH(min_s64, s64, atomicMin(at, value))
BOTH(min_u64, u64, atomicMin(at, value))
BOTH(max_s32, int, atomicMax(at, value))
BOTH(max_u32, u32, atomicMax(at, value))
BOTH(max_s64, s64, atomicMax(at, value))
BOTH(max_u64, u64, atomicMax(at, value))
BOTH(and_u32, u32, atomicAnd(at, value))
BOTH(and_u64, u64, atomicAnd(at, value))
BOTH(or_u32, u32, atomicOr(at, value))
BOTH(or_u64, u64, atomicOr(at, value))
BOTH(xor_u32, u32, atomicXor(at, value))
BOTH(xor_u64, u64, atomicXor(at, value))
BOTH(exch_u32, u32, atomicExch(at, value))
BOTH(exch_u64, u64, atomicExch(at, value))
BOTH(exch_f32, float, atomicExch(at, value))
BOTH(inc_u32, u32, atomicInc(at, 5u + (value & 3)))
BOTH(dec_u32, u32, atomicDec(at, 5u + (value & 3)))
BOTH(cas_u32, u32, atomicCAS(at, value & 3, (value >> 2) & 3))
BOTH(cas_u64, u64, atomicCAS(at, value & 3, (value >> 2) & 3))

// Results that nobody uses: reductions instead of atomics.
extern "C" __global__ void reductions_only(u32 *words, u64 *wide, float *floats, double *doubles, int *signs, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    atomicAdd(words + 0, (u32)i);
    atomicMin(words + 1, 1000u - i);
    atomicMax(words + 2, 3u * i);
    atomicAnd(words + 3, ~(1u << i % 32));
    atomicOr(words + 4, 1u << i % 29);
    atomicXor(words + 5, (u32)i * 2654435761u);
    atomicInc(words + 6, 6u);
    atomicDec(words + 7, 6u);
    atomicAdd(wide + 0, (u64)i << 20);
    atomicMax(wide + 1, (u64)i << 33);
    atomicXor(wide + 2, (u64)i * 0x9e3779b97f4a7c15ull);
    atomicAdd(floats, (float)(i % 8));
    atomicAdd(doubles, 0.5 * i);
    atomicMin(signs + 0, 5 - i);
    atomicMax(signs + 1, i - 5);
    atomicAdd_block(signs + 2, 1);
    atomicAdd_system(signs + 3, -1);
}

// A product and a maximum of floats by compare-and-swap: lanes that lose try again.
extern "C" __global__ void loops(float *product, float *maximum, double *sum, const float *in, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 *at = (u32 *)(product + i % 3), seen = *at, expected;
    do {
        expected = seen;
        seen = atomicCAS(at, expected, __float_as_int(__int_as_float(expected) * (i % 5 ? 2.0f : 0.5f)));
    } while (seen != expected);
    at = (u32 *)maximum;
    seen = *at;
    while (__int_as_float(seen) < in[i]) {
        expected = seen;
        seen = atomicCAS(at, expected, __float_as_int(in[i]));
        if (seen == expected) break;
    }
    u64 *wide = (u64 *)sum, wide_seen = *wide, wide_expected;
    do {
        wide_expected = wide_seen;
        wide_seen = atomicCAS(wide, wide_expected, __double_as_longlong(in[i] + __longlong_as_double(wide_expected)));
    } while (wide_seen != wide_expected);
}

// A lock taken by one lane at a time, with a fence; the critical section is not atomic itself.
extern "C" __global__ void locked(int *lock, int *account, int n)
{
    if (blockIdx.x * blockDim.x + threadIdx.x >= n) return;
    bool is_done = false;
    while (!is_done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            __threadfence();
            *(volatile int *)account = *(volatile int *)account * 3 + 1;
            __threadfence();
            atomicExch(lock, 0);
            is_done = true;
        }
    }
}

// 16-bit compare-and-swap, and generic addresses: the pointer is to shared or to global memory, by thread.
extern "C" __global__ void mixed(unsigned short *halves, u32 *far_cells, u32 *out)
{
    __shared__ u32 near_cells[4];
    if (threadIdx.x < 4) near_cells[threadIdx.x] = 0;
    __syncthreads();
    u32 *at = threadIdx.x % 3 ? near_cells + threadIdx.x % 4 : far_cells + threadIdx.x % 4;
    atomicAdd(at, threadIdx.x);
    atomicCAS(halves + threadIdx.x, (unsigned short)7, (unsigned short)(threadIdx.x + 100));
    __syncthreads();
    if (threadIdx.x < 4) out[blockIdx.x * 4 + threadIdx.x] = near_cells[threadIdx.x];
}

// The last block to finish adds up what the others left.
__device__ u32 finished;
extern "C" __global__ void last_block(const int *in, int *partial, int *total, int n)
{
    __shared__ int sum;
    __shared__ bool is_last;
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&sum, in[i]);
    __syncthreads();
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        is_last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        int whole = 0;
        for (int b = 0; b < gridDim.x; b++) whole += ((volatile int *)partial)[b];
        *total = whole;
    }
}
