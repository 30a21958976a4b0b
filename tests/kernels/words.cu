// Integers: hashes, random numbers, strings.

__device__ unsigned rotate_right(unsigned x, int by) { return __funnelshift_r(x, x, by); }

__constant__ unsigned round_keys[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// SHA-256 of messages of up to 55 bytes, a thread a message.
extern "C" __global__ void sha256(const unsigned char *messages, const int *lengths, unsigned char *digests, int width,
                                  int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned char *message = messages + i * width;
    unsigned w[64];
    for (int t = 0; t < 16; t++) {
        unsigned word = 0;
        for (int b = 0; b < 4; b++) {
            int at = 4 * t + b;
            word = word << 8 | (at < lengths[i] ? message[at] : at == lengths[i] ? 0x80 : 0);
        }
        w[t] = word;
    }
    w[15] = lengths[i] * 8;
    for (int t = 16; t < 64; t++) {
        unsigned a = w[t - 15], b = w[t - 2];
        w[t] = w[t - 16] + (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) + w[t - 7] +
               (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10);
    }
    const unsigned start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned h[8];
    for (int k = 0; k < 8; k++) h[k] = start[k];
    for (int t = 0; t < 64; t++) {
        unsigned s1 = rotate_right(h[4], 6) ^ rotate_right(h[4], 11) ^ rotate_right(h[4], 25);
        unsigned t1 = h[7] + s1 + (h[4] & h[5] ^ ~h[4] & h[6]) + round_keys[t] + w[t];
        unsigned s0 = rotate_right(h[0], 2) ^ rotate_right(h[0], 13) ^ rotate_right(h[0], 22);
        unsigned t2 = s0 + (h[0] & h[1] ^ h[0] & h[2] ^ h[1] & h[2]);
        for (int k = 7; k; k--) h[k] = h[k - 1];
        h[4] += t1;
        h[0] = t1 + t2;
    }
    for (int k = 0; k < 8; k++) {
        unsigned word = h[k] + start[k];
        for (int b = 0; b < 4; b++) digests[i * 32 + 4 * k + b] = word >> (24 - 8 * b);
    }
}

// CRC-32 with a table that the block makes first.
extern "C" __global__ void crc32(const unsigned char *data, const int *starts, unsigned *out, int n)
{
    __shared__ unsigned table[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) {
        unsigned c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned crc = ~0u;
    for (int at = starts[i]; at < starts[i + 1]; at++) crc = table[(crc ^ data[at]) & 255] ^ crc >> 8;
    out[i] = ~crc;
}

// FNV-1a of 64 bits and SplitMix64.
extern "C" __global__ void mix64(const unsigned long long *in, unsigned long long *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long hash = 0xcbf29ce484222325ull, value = in[i];
    for (int b = 0; b < 8; b++) hash = (hash ^ (value >> 8 * b & 255)) * 0x100000001b3ull;
    hash += 0x9e3779b97f4a7c15ull;
    hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9ull;
    hash = (hash ^ hash >> 27) * 0x94d049bb133111ebull;
    out[i] = hash ^ hash >> 31;
}

// PCG32 and xorshift128, a stream a thread.
extern "C" __global__ void random_words(unsigned *pcg, unsigned *xorshift, int per_thread, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned long long state = 42 + i;
    unsigned x = 123456789u + i, y = 362436069u, z = 521288629u, w = 88675123u;
    for (int k = 0; k < per_thread; k++) {
        unsigned long long old = state;
        state = old * 6364136223846793005ull + 1442695040888963407ull;
        unsigned shifted = (unsigned)((old >> 18 ^ old) >> 27);
        pcg[i * per_thread + k] = rotate_right(shifted, (int)(old >> 59));
        unsigned t = x ^ x << 11;
        x = y; y = z; z = w;
        w = w ^ w >> 19 ^ t ^ t >> 8;
        xorshift[i * per_thread + k] = w;
    }
}

// Philox 4x32 with ten rounds: wide multiplications.
extern "C" __global__ void philox(uint4 *out, unsigned key0, unsigned key1, int n)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned a = i, b = 1, c = 2, d = 3;
    for (int round = 0; round < 10; round++) {
        unsigned high0 = __umulhi(0xd2511f53u, a), low0 = 0xd2511f53u * a;
        unsigned high1 = __umulhi(0xcd9e8d57u, c), low1 = 0xcd9e8d57u * c;
        a = high1 ^ b ^ key0;
        b = low1;
        c = high0 ^ d ^ key1;
        d = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    out[i] = make_uint4(a, b, c, d);
}

// Where a pattern starts in a text; the pattern is in shared memory. Places come in any order.
extern "C" __global__ void search(const char *text, int n, const char *pattern, int m, int *places, int *count)
{
    extern __shared__ char wanted[];
    for (int i = threadIdx.x; i < m; i += blockDim.x) wanted[i] = pattern[i];
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i + m <= n; i += gridDim.x * blockDim.x) {
        int j = 0;
        while (j < m && text[i + j] == wanted[j]) j++;
        if (j == m) places[atomicAdd(count, 1)] = i;
    }
}

// Edit distance by diagonals: a barrier a diagonal; one block, at most 1,024 threads and characters.
extern "C" __global__ void edit_distance(const char *a, const char *b, int la, int lb, int *out)
{
    __shared__ int rows[3][1025];
    for (int d = 0; d <= la + lb; d++) {
        int *now = rows[d % 3], *one = rows[(d + 2) % 3], *two = rows[(d + 1) % 3];
        for (int i = threadIdx.x; i <= la; i += blockDim.x) {
            int j = d - i;
            if (j < 0 || j > lb) continue;
            if (i == 0) now[0] = j;
            else if (j == 0) now[i] = i;
            else now[i] = min(min(one[i - 1], one[i]) + 1, two[i - 1] + (a[i - 1] != b[j - 1]));
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = rows[(la + lb) % 3][la];
}

// Bits: counts, leading zeros, permutations, dot products of bytes, byte-wise average, wide multiplication.
extern "C" __global__ void bits(const unsigned *x, const unsigned *y, unsigned *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned a = x[i], b = y[i];
    unsigned *to = out + 16 * i;
    to[0] = __popc(a);
    to[1] = __clz(a);
    to[2] = __brev(a);
    to[3] = __ffs(a);
    to[4] = __byte_perm(a, b, 0x3715);
    to[5] = __umulhi(a, b);
    to[6] = __mulhi((int)a, (int)b);
    to[7] = __funnelshift_l(a, b, b & 63);
    to[8] = __funnelshift_rc(a, b, b & 63);
    to[9] = __dp4a((int)a, (int)b, 5);
    to[10] = __dp4a(a, b, 5u);
    to[11] = __sad((int)a, (int)b, 9u);
    to[12] = __uhadd(a, b);
    to[13] = b ? a / b + a % b : 0;
    to[14] = b ? (int)a / 7 + (int)a % (int)(b >> 1 | 1) : 1;
    to[15] = (unsigned)__umul64hi((unsigned long long)a << 32 | b, (unsigned long long)b << 32 | a);
}
