// A kernel of ten thousand lines of PTX, to time the compiler with: what generated and unrolled code looks like, in one
// entry. Two blocks of SHA-256, an 8x8 tile of a matrix product, a sorting network, and a long row of branches. It is
// compiled only, never run.

typedef unsigned int u32;

static __constant__ u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static __device__ __forceinline__ u32 turned(u32 x, int by) { return x >> by | x << (32 - by); }

static __device__ __forceinline__ void digest(u32 (&state)[8], const u32 *message)
{
    u32 w[16], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6],
               h = state[7];
#pragma unroll
    for (int i = 0; i < 16; i++) w[i] = message[i];
#pragma unroll
    for (int i = 0; i < 64; i++) {
        u32 sum1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25), choice = (e & f) ^ (~e & g);
        u32 first = h + sum1 + choice + K[i] + w[i & 15];
        u32 sum0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22), majority = (a & b) ^ (a & c) ^ (b & c);
        h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + sum0 + majority;
        u32 x = w[(i + 1) & 15], y = w[(i + 14) & 15];
        w[i & 15] += (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[(i + 9) & 15] + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

extern "C" __global__ void long_kernel(const u32 *messages, u32 *digests, const float *a, const float *b, float *out,
                                       int *keys, const int *choices, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;

    u32 state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    digest(state, messages + 32 * i);
    digest(state, messages + 32 * i + 16);
#pragma unroll
    for (int j = 0; j < 8; j++) digests[8 * i + j] = state[j];

    float sums[8][8] = {};
#pragma unroll
    for (int k = 0; k < 16; k++)
#pragma unroll
        for (int y = 0; y < 8; y++)
#pragma unroll
            for (int x = 0; x < 8; x++) sums[y][x] = fmaf(a[i * 128 + k * 8 + y], b[k * 8 + x], sums[y][x]);

    int kept[32];
#pragma unroll
    for (int j = 0; j < 32; j++) kept[j] = keys[32 * i + j];
#pragma unroll
    for (int size = 2; size <= 32; size *= 2)
#pragma unroll
        for (int apart = size / 2; apart > 0; apart /= 2)
#pragma unroll
            for (int j = 0; j < 32; j++)
                if ((j & apart) == 0) {
                    int low = min(kept[j], kept[j + apart]), high = max(kept[j], kept[j + apart]);
                    kept[j] = j & size ? high : low, kept[j + apart] = j & size ? low : high;
                }
#pragma unroll
    for (int j = 0; j < 32; j++) keys[32 * i + j] = kept[j];

#pragma unroll
    for (int y = 0; y < 8; y++)
#pragma unroll
        for (int x = 0; x < 8; x++) {
            float value = sums[y][x];
            int choice = choices[y * 8 + x];
            if (y >= 4) value = fmaxf(value, 0.0f);
            else if (choice == 0) value = value > 0.0f ? value : expf(value) - 1.0f;
            else if (choice == 1) value = value / (1.0f + expf(-value));
            else if (choice > kept[x]) value = logf(1.0f + value * value);
            else out[n + y] = value;
            out[(i * 8 + y) * 8 + x] = value;
        }
}
