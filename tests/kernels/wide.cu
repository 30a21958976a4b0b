// Integers wider than a register, and their bits.

typedef unsigned u32;
typedef unsigned long long u64;
typedef __int128 i128;
typedef unsigned __int128 u128;

__device__ void put(u64 *to, u128 v) { to[0] = (u64)v; to[1] = (u64)(v >> 64); }
__device__ u128 get(const u64 *from) { return (u128)from[1] << 64 | from[0]; }

// 128 bits: sums, differences, products, shifts, comparisons.
extern "C" __global__ void arithmetic(const u64 *x, const u64 *y, u64 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u128 a = get(x + 2 * i), b = get(y + 2 * i);
    int by = (int)(b & 127);
    u64 *to = out + 18 * i;
    put(to, a + b);
    put(to + 2, a - b);
    put(to + 4, a * b);
    put(to + 6, (u128)(u64)a * (u64)b);
    put(to + 8, (u128)((i128)(long long)(u64)a * (long long)(u64)b));
    put(to + 10, a << by);
    put(to + 12, a >> by);
    put(to + 14, (u128)((i128)a >> by));
    to[16] = (a < b) | ((i128)a < (i128)b) << 1 | (a == b) << 2;
    to[17] = __umul64hi((u64)a, (u64)b) ^ (u64)__mul64hi((long long)a, (long long)b);
}

// 128 bits by 64 bits, bit for bit.
extern "C" __global__ void long_division(const u64 *x, const u64 *y, u64 *quotients, u64 *rests, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u128 a = get(x + 2 * i), quotient = 0, rest = 0, b = y[i];
    for (int bit = 127; bit >= 0; bit--) {
        rest = rest << 1 | (a >> bit & 1);
        if (rest >= b) { rest -= b; quotient |= (u128)1 << bit; }
    }
    put(quotients + 2 * i, quotient);
    rests[i] = (u64)rest;
}

// 64 bits, signed and not, also by constants.
extern "C" __global__ void quotients(const u64 *x, const u64 *y, u64 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 a = x[i], b = y[i];
    u64 *to = out + 8 * i;
    to[0] = a / b;
    to[1] = a % b;
    to[2] = (u64)((long long)a / ((long long)b | 2));
    to[3] = (u64)((long long)a % ((long long)b | 2));
    to[4] = a / 1000000007;
    to[5] = (u64)((long long)a / 12345);
    to[6] = a % 10;
    to[7] = (u64)((long long)a % -7);
}

// Sums of 256 bits by a chain of carries, and their differences.
extern "C" __global__ void chains(const u32 *x, const u32 *y, u32 *sums, u32 *differences, u32 *carries, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 a[8], b[8], s[8], d[8], carry, borrow;
    for (int k = 0; k < 8; k++) { a[k] = x[8 * i + k]; b[k] = y[8 * i + k]; }
    asm("add.cc.u32 %0, %9, %17;\n\taddc.cc.u32 %1, %10, %18;\n\taddc.cc.u32 %2, %11, %19;\n\taddc.cc.u32 %3, %12, %20;\n\t"
        "addc.cc.u32 %4, %13, %21;\n\taddc.cc.u32 %5, %14, %22;\n\taddc.cc.u32 %6, %15, %23;\n\taddc.cc.u32 %7, %16, %24;\n\t"
        "addc.u32 %8, 0, 0;"
        : "=&r"(s[0]), "=&r"(s[1]), "=&r"(s[2]), "=&r"(s[3]), "=&r"(s[4]), "=&r"(s[5]), "=&r"(s[6]), "=&r"(s[7]), "=r"(carry)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]),
          "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]), "r"(b[6]), "r"(b[7]));
    asm("sub.cc.u32 %0, %9, %17;\n\tsubc.cc.u32 %1, %10, %18;\n\tsubc.cc.u32 %2, %11, %19;\n\tsubc.cc.u32 %3, %12, %20;\n\t"
        "subc.cc.u32 %4, %13, %21;\n\tsubc.cc.u32 %5, %14, %22;\n\tsubc.cc.u32 %6, %15, %23;\n\tsubc.cc.u32 %7, %16, %24;\n\t"
        "subc.u32 %8, 0, 0;"
        : "=&r"(d[0]), "=&r"(d[1]), "=&r"(d[2]), "=&r"(d[3]), "=&r"(d[4]), "=&r"(d[5]), "=&r"(d[6]), "=&r"(d[7]), "=r"(borrow)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(a[4]), "r"(a[5]), "r"(a[6]), "r"(a[7]),
          "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(b[4]), "r"(b[5]), "r"(b[6]), "r"(b[7]));
    for (int k = 0; k < 8; k++) { sums[8 * i + k] = s[k]; differences[8 * i + k] = d[k]; }
    carries[2 * i] = carry;
    carries[2 * i + 1] = borrow;
}

// Montgomery's product of 128 bits in words of 32: x y / 2^128 modulo an odd number.
extern "C" __global__ void montgomery(const u32 *x, const u32 *y, const u32 *modulus, u32 inverse, u32 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 t[6] = {}, m[4];
    for (int k = 0; k < 4; k++) m[k] = modulus[k];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        u64 carry = 0;
        for (int k = 0; k < 4; k++) {
            u64 sum = (u64)x[4 * i + k] * y[4 * i + j] + t[k] + carry;
            t[k] = (u32)sum;
            carry = sum >> 32;
        }
        u64 high = (u64)t[4] + carry;
        t[4] = (u32)high;
        t[5] = (u32)(high >> 32);
        u32 q = t[0] * inverse;
        carry = ((u64)q * m[0] + t[0]) >> 32;
        for (int k = 1; k < 4; k++) {
            u64 sum = (u64)q * m[k] + t[k] + carry;
            t[k - 1] = (u32)sum;
            carry = sum >> 32;
        }
        high = (u64)t[4] + carry;
        t[3] = (u32)high;
        t[4] = t[5] + (u32)(high >> 32);
    }
    u32 less[4];
    long long borrow = 0;
    for (int k = 0; k < 4; k++) {
        long long d = (long long)t[k] - m[k] + borrow;
        less[k] = (u32)d;
        borrow = d >> 63;
    }
    bool is_larger = t[4] || borrow == 0;
    for (int k = 0; k < 4; k++) out[4 * i + k] = is_larger ? less[k] : t[k];
}

// Powers modulo a number below 2^63, by doubling and adding.
extern "C" __global__ void powers(const u64 *base, const u32 *exponent, const u64 *modulus, u64 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 m = modulus[i], result = 1 % m, square = base[i] % m;
    for (u32 e = exponent[i]; e; e >>= 1) {
        u64 factors[2] = {result, square};
        for (int k = e & 1 ? 0 : 1; k < 2; k++) {
            u64 sum = 0;
            for (u64 a = factors[k], b = square; b; b >>= 1) {
                if (b & 1) { sum += a; sum = sum >= m ? sum - m : sum; }
                a += a;
                a = a >= m ? a - m : a;
            }
            factors[k] = sum;
        }
        if (e & 1) result = factors[0];
        square = factors[1];
    }
    out[i] = result;
}

// The greatest common divisor by halving, and the integer root.
extern "C" __global__ void divisors(const u64 *x, const u64 *y, u64 *common, u32 *root, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 a = x[i], b = y[i];
    if (a && b) {
        int both = __ffsll((long long)(a | b)) - 1;
        a >>= __ffsll((long long)a) - 1;
        while (b) {
            b >>= __ffsll((long long)b) - 1;
            if (a > b) { u64 t = a; a = b; b = t; }
            b -= a;
        }
        a <<= both;
    } else {
        a |= b;
    }
    common[i] = a;
    u64 rest = x[i], r = 0;
    for (u64 bit = 1ull << 62; bit; bit >>= 2) {
        if (rest >= r + bit) { rest -= r + bit; r = (r >> 1) + bit; }
        else r >>= 1;
    }
    root[i] = (u32)r;
}

// A matrix of 32 x 32 bits a warp, turned by exchanges of halves; and by votes, which must agree.
extern "C" __global__ void turn_bits(const u32 *in, u32 *out, u32 *by_votes)
{
    int lane = threadIdx.x & 31, warp = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    u32 row = in[warp * 32 + lane], x = row, mask = 0x0000ffff;
    for (int by = 16; by; by >>= 1, mask ^= mask << by) {
        u32 other = __shfl_xor_sync(~0u, x, by);
        x = lane & by ? (x & ~mask) | (other >> by & mask) : (x & mask) | (other << by & ~mask);
    }
    out[warp * 32 + lane] = x;
    for (int bit = 0; bit < 32; bit++) {
        u32 column = __ballot_sync(~0u, row >> bit & 1);
        if (lane == bit) by_votes[warp * 32 + lane] = column;
    }
}

// Bits of 64: turned as 8 x 8, interleaved, counted, gathered by a mask.
extern "C" __global__ void bits(const u64 *x, const u64 *masks, u64 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 v = x[i], t;
    u64 *to = out + 6 * i;
    t = (v ^ v >> 7) & 0x00aa00aa00aa00aaull;  v ^= t ^ t << 7;
    t = (v ^ v >> 14) & 0x0000cccc0000ccccull; v ^= t ^ t << 14;
    t = (v ^ v >> 28) & 0x00000000f0f0f0f0ull; v ^= t ^ t << 28;
    to[0] = v;
    u64 low = x[i] & 0xffffffff;
    low = (low | low << 16) & 0x0000ffff0000ffffull;
    low = (low | low << 8) & 0x00ff00ff00ff00ffull;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0full;
    low = (low | low << 2) & 0x3333333333333333ull;
    to[1] = (low | low << 1) & 0x5555555555555555ull;
    to[2] = __popcll(x[i]) | __clzll((long long)x[i]) << 8 | __ffsll((long long)x[i]) << 16;
    to[3] = __brevll(x[i]);
    u64 gathered = 0;
    int at = 0;
    for (u64 mask = masks[i]; mask; mask &= mask - 1) gathered |= (x[i] >> (__ffsll((long long)mask) - 1) & 1) << at++;
    to[4] = gathered;
    to[5] = (x[i] >> (masks[i] & 63)) + ((u64)((long long)x[i] >> (masks[i] >> 58)));
}
