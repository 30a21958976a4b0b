// What NVIDIA's compiler brings along of CUDA C and Clang without NVIDIA's headers does not: as much as these kernels
// take. Put before a source by an option.

#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define DEVICE static __attribute__((device, always_inline))

// Places and sizes.

struct Axes { unsigned x, y, z; };
#define AXES(name) \
    DEVICE Axes axes_of_##name() \
    { \
        return {(unsigned)__nvvm_read_ptx_sreg_##name##_x(), (unsigned)__nvvm_read_ptx_sreg_##name##_y(), \
                (unsigned)__nvvm_read_ptx_sreg_##name##_z()}; \
    }
AXES(tid)
AXES(ctaid)
AXES(ntid)
AXES(nctaid)
#define threadIdx axes_of_tid()
#define blockIdx axes_of_ctaid()
#define blockDim axes_of_ntid()
#define gridDim axes_of_nctaid()
#define warpSize 32

// Vectors.

#define VECTORS(type, name) \
    struct __align__(2 * sizeof(type)) name##2 { type x, y; }; \
    struct name##3 { type x, y, z; }; \
    struct __align__(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
    DEVICE name##2 make_##name##2(type x, type y) { return {x, y}; } \
    DEVICE name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
    DEVICE name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTORS(char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(unsigned, uint)
VECTORS(float, float)
VECTORS(double, double)

// Numbers.

#define ORDERED(type) \
    DEVICE type min(type a, type b) { return b < a ? b : a; } \
    DEVICE type max(type a, type b) { return a < b ? b : a; }
ORDERED(int)
ORDERED(unsigned)
ORDERED(long long)
ORDERED(unsigned long long)
DEVICE unsigned min(unsigned a, int b) { return min(a, (unsigned)b); }
DEVICE unsigned min(int a, unsigned b) { return min((unsigned)a, b); }
DEVICE int abs(int v) { return v < 0 ? -v : v; }
DEVICE float fminf(float a, float b) { return __builtin_fminf(a, b); }
DEVICE float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
DEVICE float fabsf(float v) { return __builtin_fabsf(v); }
DEVICE double fabs(double v) { return __builtin_fabs(v); }
DEVICE float sqrtf(float v) { return __nvvm_sqrt_rn_f(v); }
DEVICE double sqrt(double v) { return __nvvm_sqrt_rn_d(v); }
DEVICE float __fadd_rn(float a, float b) { return __nvvm_add_rn_f(a, b); }
DEVICE float __fmul_rn(float a, float b) { return __nvvm_mul_rn_f(a, b); }
DEVICE double floor(double v) { return __builtin_floor(v); }
DEVICE float expf(float v) { return __nvvm_ex2_approx_f(v * 1.4426950408889634f); }
DEVICE float logf(float v) { return __nvvm_lg2_approx_f(v) * 0.69314718055994531f; }
DEVICE void sincosf(float v, float *sine, float *cosine)
{
    *sine = __nvvm_sin_approx_f(v);
    *cosine = __nvvm_cos_approx_f(v);
}
DEVICE float __int_as_float(int v) { return __builtin_bit_cast(float, v); }
DEVICE int __float_as_int(float v) { return __builtin_bit_cast(int, v); }
DEVICE double __longlong_as_double(long long v) { return __builtin_bit_cast(double, v); }
DEVICE long long __double_as_longlong(double v) { return __builtin_bit_cast(long long, v); }
DEVICE unsigned __float_as_uint(float v) { return __builtin_bit_cast(unsigned, v); }
DEVICE int __popc(unsigned v) { return __builtin_popcount(v); }
DEVICE int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
DEVICE int __clz(int v) { return v ? __builtin_clz(v) : 32; }
DEVICE int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
DEVICE int __ffs(int v) { return __builtin_ffs(v); }
DEVICE int __ffsll(long long v) { return __builtin_ffsll(v); }
DEVICE unsigned __brev(unsigned v) { return __builtin_bitreverse32(v); }
DEVICE unsigned long long __brevll(unsigned long long v) { return __builtin_bitreverse64(v); }
DEVICE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
DEVICE int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
DEVICE unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
DEVICE long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
DEVICE unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
DEVICE unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32);
}
DEVICE unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> min(by, 32u));
}
DEVICE unsigned __byte_perm(unsigned a, unsigned b, unsigned which) { return __nvvm_prmt(a, b, which); }
DEVICE int __dp4a(int a, int b, int sum)
{
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
DEVICE unsigned __dp4a(unsigned a, unsigned b, unsigned sum)
{
    asm("dp4a.u32.u32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
DEVICE unsigned __sad(int a, int b, unsigned sum) { return __nvvm_sad_i(a, b, sum); }
DEVICE unsigned __uhadd(unsigned a, unsigned b) { return (a & b) + ((a ^ b) >> 1); }
DEVICE unsigned __cvta_generic_to_shared(const void *at)
{
    return (unsigned)(unsigned long long)(__attribute__((address_space(3))) const char *)at;
}

// Threads together. Values of any type go by words.

DEVICE void __syncwarp(unsigned mask = ~0u) { __nvvm_bar_warp_sync(mask); }
DEVICE int __syncthreads_count(int v) { return __nvvm_bar0_popc(v); }
DEVICE int __syncthreads_and(int v) { return __nvvm_bar0_and(v); }
DEVICE int __syncthreads_or(int v) { return __nvvm_bar0_or(v); }
DEVICE void __threadfence() { __nvvm_membar_gl(); }
DEVICE void __threadfence_block() { __nvvm_membar_cta(); }
DEVICE unsigned __ballot_sync(unsigned mask, int v) { return __nvvm_vote_ballot_sync(mask, v); }
DEVICE int __any_sync(unsigned mask, int v) { return __nvvm_vote_any_sync(mask, v); }
DEVICE int __all_sync(unsigned mask, int v) { return __nvvm_vote_all_sync(mask, v); }
DEVICE unsigned __activemask() { return __nvvm_activemask(); }
DEVICE unsigned __match_any_sync(unsigned mask, int v) { return __nvvm_match_any_sync_i32(mask, v); }
DEVICE unsigned __match_any_sync(unsigned mask, unsigned long long v) { return __nvvm_match_any_sync_i64(mask, v); }
DEVICE unsigned __match_all_sync(unsigned mask, int v, int *are_all)
{
    return __nvvm_match_all_sync_i32p(mask, v, are_all);
}
DEVICE int __reduce_add_sync(unsigned mask, int v) { return __nvvm_redux_sync_add(v, mask); }
DEVICE unsigned __reduce_add_sync(unsigned mask, unsigned v) { return __nvvm_redux_sync_add(v, mask); }
DEVICE int __reduce_min_sync(unsigned mask, int v) { return __nvvm_redux_sync_min(v, mask); }
DEVICE int __reduce_max_sync(unsigned mask, int v) { return __nvvm_redux_sync_max(v, mask); }
DEVICE unsigned __reduce_max_sync(unsigned mask, unsigned v) { return __nvvm_redux_sync_umax(v, mask); }
DEVICE unsigned __reduce_and_sync(unsigned mask, unsigned v) { return __nvvm_redux_sync_and(v, mask); }
DEVICE unsigned __reduce_or_sync(unsigned mask, unsigned v) { return __nvvm_redux_sync_or(v, mask); }
DEVICE unsigned __reduce_xor_sync(unsigned mask, unsigned v) { return __nvvm_redux_sync_xor(v, mask); }

#define SHUFFLE(name, builtin, type, low) \
    template <typename T> DEVICE T name(unsigned mask, T value, type by, int width = 32) \
    { \
        int words[(sizeof(T) + 3) / 4]; \
        __builtin_memcpy(words, &value, sizeof(T)); \
        for (int &word : words) word = builtin(mask, word, by, (32 - width) << 8 | low); \
        __builtin_memcpy(&value, words, sizeof(T)); \
        return value; \
    }
SHUFFLE(__shfl_sync, __nvvm_shfl_sync_idx_i32, int, 31)
SHUFFLE(__shfl_up_sync, __nvvm_shfl_sync_up_i32, unsigned, 0)
SHUFFLE(__shfl_down_sync, __nvvm_shfl_sync_down_i32, unsigned, 31)
SHUFFLE(__shfl_xor_sync, __nvvm_shfl_sync_bfly_i32, int, 31)

// Atomics: the second value's type does not take part in finding the first's.

template <typename T> struct Same { typedef T type; };
#define ATOMIC(name, builtin) \
    template <typename T> DEVICE T name(T *at, typename Same<T>::type v) { return builtin(at, v, __ATOMIC_RELAXED); }
ATOMIC(atomicAdd, __atomic_fetch_add)
ATOMIC(atomicSub, __atomic_fetch_sub)
ATOMIC(atomicMin, __atomic_fetch_min)
ATOMIC(atomicMax, __atomic_fetch_max)
ATOMIC(atomicAnd, __atomic_fetch_and)
ATOMIC(atomicOr, __atomic_fetch_or)
ATOMIC(atomicXor, __atomic_fetch_xor)
template <typename T> DEVICE T atomicExch(T *at, typename Same<T>::type v)
{
    T old;
    __atomic_exchange(at, &v, &old, __ATOMIC_RELAXED);
    return old;
}
template <typename T> DEVICE T atomicCAS(T *at, typename Same<T>::type seen, typename Same<T>::type now)
{
    __atomic_compare_exchange_n(at, &seen, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return seen;
}
DEVICE unsigned atomicInc(unsigned *at, unsigned limit) { return __nvvm_atom_inc_gen_ui(at, limit); }
DEVICE unsigned atomicDec(unsigned *at, unsigned limit) { return __nvvm_atom_dec_gen_ui(at, limit); }
DEVICE int atomicAdd_block(int *at, int v) { return __nvvm_atom_cta_add_gen_i(at, v); }
DEVICE int atomicAdd_system(int *at, int v) { return __nvvm_atom_sys_add_gen_i(at, v); }
