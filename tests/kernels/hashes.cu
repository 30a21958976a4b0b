// Hashes and random numbers, a thread a message or a stream.

typedef unsigned u32;
typedef unsigned long long u64;

__device__ u32 left(u32 x, int by) { return x << by | x >> (32 - by); }
__device__ u64 left64(u64 x, int by) { return x << by | x >> (64 - by); }
__device__ u32 right(u32 x, int by) { return x >> by | x << (32 - by); }

// Bytes at any address, the lowest first.
__device__ u32 word(const unsigned char *at) { return at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24; }
__device__ u64 words(const unsigned char *at) { return word(at) | (u64)word(at + 4) << 32; }

const u32 P1 = 2654435761u, P2 = 2246822519u, P3 = 3266489917u, P4 = 668265263u, P5 = 374761393u;

// xxHash of 32 bits.
extern "C" __global__ void xxhash32(const unsigned char *data, const int *starts, u32 *out, u32 seed, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *at = data + starts[i], *end = data + starts[i + 1];
    u32 length = end - at, h;
    if (length >= 16) {
        u32 lane[4] = {seed + P1 + P2, seed + P2, seed, seed - P1};
        for (; at + 16 <= end; at += 16)
            for (int k = 0; k < 4; k++) lane[k] = left(lane[k] + word(at + 4 * k) * P2, 13) * P1;
        h = left(lane[0], 1) + left(lane[1], 7) + left(lane[2], 12) + left(lane[3], 18);
    } else {
        h = seed + P5;
    }
    h += length;
    for (; at + 4 <= end; at += 4) h = left(h + word(at) * P3, 17) * P4;
    for (; at < end; at++) h = left(h + *at * P5, 11) * P1;
    h = (h ^ h >> 15) * P2;
    h = (h ^ h >> 13) * P3;
    out[i] = h ^ h >> 16;
}

const u64 Q1 = 11400714785074694791ull, Q2 = 14029467366897019727ull, Q3 = 1609587929392839161ull,
          Q4 = 9650029242287828579ull, Q5 = 2870177450012600261ull;

__device__ u64 xx_round(u64 lane, u64 input) { return left64(lane + input * Q2, 31) * Q1; }

// xxHash of 64 bits.
extern "C" __global__ void xxhash64(const unsigned char *data, const int *starts, u64 *out, u64 seed, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *at = data + starts[i], *end = data + starts[i + 1];
    u64 length = end - at, h;
    if (length >= 32) {
        u64 lane[4] = {seed + Q1 + Q2, seed + Q2, seed, seed - Q1};
        for (; at + 32 <= end; at += 32)
            for (int k = 0; k < 4; k++) lane[k] = xx_round(lane[k], words(at + 8 * k));
        h = left64(lane[0], 1) + left64(lane[1], 7) + left64(lane[2], 12) + left64(lane[3], 18);
        for (int k = 0; k < 4; k++) h = (h ^ xx_round(0, lane[k])) * Q1 + Q4;
    } else {
        h = seed + Q5;
    }
    h += length;
    for (; at + 8 <= end; at += 8) h = left64(h ^ xx_round(0, words(at)), 27) * Q1 + Q4;
    if (at + 4 <= end) { h = left64(h ^ word(at) * Q1, 23) * Q2 + Q3; at += 4; }
    for (; at < end; at++) h = left64(h ^ *at * Q5, 11) * Q1;
    h = (h ^ h >> 33) * Q2;
    h = (h ^ h >> 29) * Q3;
    out[i] = h ^ h >> 32;
}

// Murmur3 of 32 bits; the rest by a switch that falls through.
extern "C" __global__ void murmur3(const unsigned char *data, const int *starts, u32 *out, u32 seed, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *at = data + starts[i], *end = data + starts[i + 1];
    u32 h = seed, length = end - at, k = 0;
    for (; at + 4 <= end; at += 4) {
        h ^= left(word(at) * 0xcc9e2d51u, 15) * 0x1b873593u;
        h = left(h, 13) * 5 + 0xe6546b64u;
    }
    switch (end - at) {
    case 3: k ^= at[2] << 16;
    case 2: k ^= at[1] << 8;
    case 1: k ^= at[0]; h ^= left(k * 0xcc9e2d51u, 15) * 0x1b873593u;
    }
    h ^= length;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    out[i] = h ^ h >> 16;
}

__constant__ u32 start_words[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
__constant__ unsigned char orders[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

__device__ void blake_mix(u32 *v, int a, int b, int c, int d, u32 x, u32 y)
{
    v[a] += v[b] + x; v[d] = right(v[d] ^ v[a], 16);
    v[c] += v[d];     v[b] = right(v[b] ^ v[c], 12);
    v[a] += v[b] + y; v[d] = right(v[d] ^ v[a], 8);
    v[c] += v[d];     v[b] = right(v[b] ^ v[c], 7);
}

// BLAKE2s, digests of 32 bytes; the order of the words comes from constant memory.
extern "C" __global__ void blake2s(const unsigned char *data, const int *starts, u32 *digests, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int length = starts[i + 1] - starts[i];
    const unsigned char *message = data + starts[i];
    u32 h[8];
    for (int k = 0; k < 8; k++) h[k] = start_words[k];
    h[0] ^= 0x01010020;
    int from = 0;
    do {
        u32 m[16], v[16];
        for (int k = 0; k < 16; k++) {
            m[k] = 0;
            for (int b = 0; b < 4; b++) {
                int at = from + 4 * k + b;
                if (at < length) m[k] |= (u32)message[at] << 8 * b;
            }
        }
        from = min(from + 64, length);
        for (int k = 0; k < 8; k++) { v[k] = h[k]; v[k + 8] = start_words[k]; }
        v[12] ^= from;
        if (from == length) v[14] = ~v[14];
        for (int r = 0; r < 10; r++) {
            const unsigned char *s = orders[r];
            blake_mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);   blake_mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
            blake_mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);  blake_mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
            blake_mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);  blake_mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
            blake_mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]); blake_mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
        }
        for (int k = 0; k < 8; k++) h[k] ^= v[k] ^ v[k + 8];
    } while (from < length);
    for (int k = 0; k < 8; k++) digests[i * 8 + k] = h[k];
}

// ChaCha20: a thread a block of 64 bytes of the stream.
extern "C" __global__ void chacha20(const u32 *key, const u32 *nonce, u32 *out, u32 counter, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 first[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
    for (int k = 0; k < 8; k++) first[4 + k] = key[k];
    first[12] = counter + i;
    for (int k = 0; k < 3; k++) first[13 + k] = nonce[k];
    for (int k = 0; k < 16; k++) x[k] = first[k];
    for (int r = 0; r < 10; r++)
        for (int q = 0; q < 8; q++) {
            int a = q & 3, turn = q >> 2, b = 4 + (a + turn & 3), c = 8 + (a + 2 * turn & 3), d = 12 + (a + 3 * turn & 3);
            x[a] += x[b]; x[d] = left(x[d] ^ x[a], 16);
            x[c] += x[d]; x[b] = left(x[b] ^ x[c], 12);
            x[a] += x[b]; x[d] = left(x[d] ^ x[a], 8);
            x[c] += x[d]; x[b] = left(x[b] ^ x[c], 7);
        }
    for (int k = 0; k < 16; k++) out[i * 16 + k] = x[k] + first[k];
}

// xorwow: five words and a counter.
extern "C" __global__ void xorwow(u32 *out, int per_thread, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 v[5] = {123456789u + i, 362436069u, 521288629u, 88675123u, 5783321u}, d = 6615241u;
    for (int k = 0; k < per_thread; k++) {
        u32 t = v[0] ^ v[0] >> 2;
        v[0] = v[1]; v[1] = v[2]; v[2] = v[3]; v[3] = v[4];
        v[4] = v[4] ^ v[4] << 4 ^ t ^ t << 1;
        d += 362437;
        out[i * per_thread + k] = v[4] + d;
    }
}

// MRG32k3a in doubles, which are exact here.
extern "C" __global__ void mrg32k3a(double *out, int per_thread, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const double m1 = 4294967087.0, m2 = 4294944443.0;
    double a[3] = {12345.0 + i, 12345, 12345}, b[3] = {12345, 12345.0 + i, 12345};
    for (int k = 0; k < per_thread; k++) {
        double p = 1403580.0 * a[1] - 810728.0 * a[0];
        p -= floor(p / m1) * m1;
        a[0] = a[1]; a[1] = a[2]; a[2] = p;
        double q = 527612.0 * b[2] - 1370589.0 * b[0];
        q -= floor(q / m2) * m2;
        b[0] = b[1]; b[1] = b[2]; b[2] = q;
        out[i * per_thread + k] = (p <= q ? p - q + m1 : p - q) * 2.328306549295728e-10;
    }
}

// Normal numbers in pairs, from uniform ones.
extern "C" __global__ void box_muller(const u32 *words_in, float2 *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float u = (words_in[2 * i] >> 8) * 5.9604645e-8f + 2.9802322e-8f, v = (words_in[2 * i + 1] >> 8) * 5.9604645e-8f;
    float radius = sqrtf(-2 * logf(u)), sine, cosine;
    sincosf(6.2831853f * v, &sine, &cosine);
    out[i] = make_float2(radius * cosine, radius * sine);
}

// Sobol's first dimensions by Gray codes; directions are a table in constant memory. And Halton's of base three.
__constant__ u32 directions[2][10] = {
    {1u << 31, 1u << 30, 1u << 29, 1u << 28, 1u << 27, 1u << 26, 1u << 25, 1u << 24, 1u << 23, 1u << 22},
    {1u << 31, 3u << 30, 5u << 29, 15u << 28, 17u << 27, 51u << 26, 85u << 25, 255u << 24, 257u << 23, 771u << 22}};

extern "C" __global__ void even_spread(u32 *sobol, double *halton, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    for (int axis = 0; axis < 2; axis++) {
        u32 x = 0;
        for (u32 code = i ^ i >> 1; code; code &= code - 1) x ^= directions[axis][__ffs(code) - 1];
        sobol[2 * i + axis] = x;
    }
    double unit = 1, sum = 0;
    for (int rest = i; rest; rest /= 3) { unit /= 3; sum += unit * (rest % 3); }
    halton[i] = sum;
}
