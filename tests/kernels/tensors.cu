// Matrix instructions by inline PTX, and products without them. A is m x k, B is k x n, both by rows.

typedef unsigned short half;
typedef unsigned u32;

__device__ u32 pair(const half *low, const half *high) { return *low | (u32)*high << 16; }

__device__ void warp_tile(float *c, const float *d, int row, int column, int n)
{
    int lane = threadIdx.x & 31;
    for (int r = 0; r < 4; r++) c[(row + lane / 4 + (r >> 1) * 8) * n + column + lane % 4 * 2 + (r & 1)] = d[r];
}

// Halves by m16n8k8, a warp a tile of 16 x 8. Whole tiles.
extern "C" __global__ void halves_by_eights(const half *a, const half *b, float *c, int n, int k)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    float d[4] = {};
    for (int s = 0; s < k; s += 8) {
        u32 a0 = *(const u32 *)(a + (row + g) * k + s + 2 * t), a1 = *(const u32 *)(a + (row + g + 8) * k + s + 2 * t);
        u32 b0 = pair(b + (s + 2 * t) * n + column + g, b + (s + 2 * t + 1) * n + column + g);
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
    }
    warp_tile(c, d, row, column, n);
}

// Halves added up as halves.
extern "C" __global__ void sums_of_halves(const half *a, const half *b, half *c, int n, int k)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    u32 d[2] = {};
    for (int s = 0; s < k; s += 16) {
        u32 f[4], h[2];
        for (int r = 0; r < 4; r++) f[r] = *(const u32 *)(a + (row + g + (r & 1) * 8) * k + s + 2 * t + (r >> 1) * 8);
        for (int r = 0; r < 2; r++)
            h[r] = pair(b + (s + 2 * t + 8 * r) * n + column + g, b + (s + 2 * t + 8 * r + 1) * n + column + g);
        asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"
            : "+r"(d[0]), "+r"(d[1]) : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(h[0]), "r"(h[1]));
    }
    for (int r = 0; r < 2; r++) *(u32 *)(c + (row + g + 8 * r) * n + column + 2 * t) = d[r];
}

// bf16 by m16n8k16.
extern "C" __global__ void bfloats(const half *a, const half *b, float *c, int n, int k)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    float d[4] = {};
    for (int s = 0; s < k; s += 16) {
        u32 f[4], h[2];
        for (int r = 0; r < 4; r++) f[r] = *(const u32 *)(a + (row + g + (r & 1) * 8) * k + s + 2 * t + (r >> 1) * 8);
        for (int r = 0; r < 2; r++)
            h[r] = pair(b + (s + 2 * t + 8 * r) * n + column + g, b + (s + 2 * t + 8 * r + 1) * n + column + g);
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(h[0]), "r"(h[1]));
    }
    warp_tile(c, d, row, column, n);
}

// f32 rounded to tf32, by m16n8k8.
extern "C" __global__ void tensor_floats(const float *a, const float *b, float *c, int n, int k)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    float d[4] = {};
    for (int s = 0; s < k; s += 8) {
        u32 f[4], h[2];
        for (int r = 0; r < 4; r++)
            asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(f[r]) : "f"(a[(row + g + (r & 1) * 8) * k + s + t + (r >> 1) * 4]));
        for (int r = 0; r < 2; r++)
            asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(h[r]) : "f"(b[(s + t + 4 * r) * n + column + g]));
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(h[0]), "r"(h[1]));
    }
    warp_tile(c, d, row, column, n);
}

// Bytes by m16n8k32; B comes by columns.
extern "C" __global__ void signed_bytes(const signed char *a, const signed char *b, int *c, int n, int k)
{
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, row = blockIdx.y * 16, column = blockIdx.x * 8;
    int d[4] = {};
    for (int s = 0; s < k; s += 32) {
        u32 f[4], h[2];
        for (int r = 0; r < 4; r++)
            f[r] = *(const u32 *)(a + (row + g + (r & 1) * 8) * k + s + 4 * t + (r >> 1) * 16);
        for (int r = 0; r < 2; r++) h[r] = *(const u32 *)(b + (column + g) * k + s + 4 * t + 16 * r);
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
            : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(h[0]), "r"(h[1]));
    }
    for (int r = 0; r < 4; r++) c[(row + g + (r >> 1) * 8) * n + column + 2 * t + (r & 1)] = d[r];
}

// Attention of halves by tiles of 16 keys: 16 queries a warp, depth 32, one head a blockIdx.y. The weights of a tile go
// from the layout of a product to that of a factor without leaving their registers.
extern "C" __global__ void attention(const half *q, const half *k, const half *v, float *out, int queries, int keys,
                                     float scale)
{
    const int depth = 32;
    q += blockIdx.y * queries * depth;
    k += blockIdx.y * keys * depth;
    v += blockIdx.y * keys * depth;
    out += blockIdx.y * queries * depth;
    int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, first = blockIdx.x * 16;
    u32 mine[2][4];
    for (int s = 0; s < 2; s++)
        for (int r = 0; r < 4; r++) {
            int row = first + g + (r & 1) * 8;
            mine[s][r] = row < queries ? *(const u32 *)(q + row * depth + s * 16 + 2 * t + (r >> 1) * 8) : 0;
        }
    float total[4][4] = {}, highest[2] = {-1e30f, -1e30f}, weight[2] = {};
    for (int from = 0; from < keys; from += 16) {
        float score[2][4] = {};
        for (int tile = 0; tile < 2; tile++)
            for (int s = 0; s < 2; s++) {
                u32 h[2];
                int key = from + tile * 8 + g;
                for (int r = 0; r < 2; r++)
                    h[r] = key < keys ? *(const u32 *)(k + key * depth + s * 16 + 2 * t + 8 * r) : 0;
                float *d = score[tile];
                asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                    "{%0,%1,%2,%3};"
                    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                    : "r"(mine[s][0]), "r"(mine[s][1]), "r"(mine[s][2]), "r"(mine[s][3]), "r"(h[0]), "r"(h[1]));
            }
        u32 factor[4];
        for (int half_row = 0; half_row < 2; half_row++) {
            float now = highest[half_row];
            for (int tile = 0; tile < 2; tile++)
                for (int r = 0; r < 2; r++) {
                    float &s = score[tile][half_row * 2 + r];
                    s = from + tile * 8 + 2 * t + r < keys ? s * scale : -1e30f;
                    now = fmaxf(now, s);
                }
            now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
            now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
            float fade = expf(highest[half_row] - now), sum = 0;
            for (int tile = 0; tile < 2; tile++) {
                float p = expf(score[tile][half_row * 2] - now), r = expf(score[tile][half_row * 2 + 1] - now);
                sum += p + r;
                asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(factor[tile * 2 + half_row]) : "f"(r), "f"(p));
            }
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            weight[half_row] = weight[half_row] * fade + sum;
            highest[half_row] = now;
            for (int tile = 0; tile < 4; tile++)
                for (int r = 0; r < 2; r++) total[tile][half_row * 2 + r] *= fade;
        }
        for (int tile = 0; tile < 4; tile++) {
            u32 h[2];
            for (int r = 0; r < 2; r++) {
                int key = from + 2 * t + 8 * r, at = tile * 8 + g;
                h[r] = (key < keys ? v[key * depth + at] : 0) | (key + 1 < keys ? v[(key + 1) * depth + at] : 0) << 16;
            }
            float *d = total[tile];
            asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                "{%0,%1,%2,%3};"
                : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                : "r"(factor[0]), "r"(factor[1]), "r"(factor[2]), "r"(factor[3]), "r"(h[0]), "r"(h[1]));
        }
    }
    for (int tile = 0; tile < 4; tile++)
        for (int r = 0; r < 4; r++) {
            int row = first + g + (r >> 1) * 8;
            if (row < queries) out[row * depth + tile * 8 + 2 * t + (r & 1)] = total[tile][r] / weight[r >> 1];
        }
}

// Doubles: 32 x 32 of C a block of 8 x 8 threads, 4 x 4 a thread in registers. Any sizes.
extern "C" __global__ void __launch_bounds__(64) doubles(const double *a, const double *b, double *c, int m, int n, int k)
{
    __shared__ double tile_a[8][33], tile_b[8][32];
    int tx = threadIdx.x, ty = threadIdx.y, id = ty * 8 + tx, top = blockIdx.y * 32, left = blockIdx.x * 32;
    double sum[4][4] = {};
    for (int base = 0; base < k; base += 8) {
        for (int i = id; i < 256; i += 64) {
            int row = i / 8, s = i % 8;
            tile_a[s][row] = top + row < m && base + s < k ? a[(top + row) * k + base + s] : 0;
            int column = i % 32, r = i / 32;
            tile_b[r][column] = left + column < n && base + r < k ? b[(base + r) * n + left + column] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int s = 0; s < 8; s++) {
            double x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) { x[i] = tile_a[s][ty + 8 * i]; y[i] = tile_b[s][tx + 8 * i]; }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] += x[i] * y[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            int row = top + ty + 8 * i, column = left + tx + 8 * j;
            if (row < m && column < n) c[row * n + column] = sum[i][j];
        }
}

// f32 by tiles that come in while the ones before are worked on: two buffers, cp.async. n and k are multiples of four.
extern "C" __global__ void __launch_bounds__(256) buffered(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ __align__(16) float tile_a[2][16][16], tile_b[2][16][16];
    int tx = threadIdx.x, ty = threadIdx.y, id = ty * 16 + tx, row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx;
    auto bring = [&](int buffer, int base) {
        if (id < 128) {
            int r = id % 64 / 4, s = id % 4 * 4;
            bool is_a = id < 64;
            int down = is_a ? blockIdx.y * 16 + r : base + r, across = is_a ? base + s : blockIdx.x * 16 + s;
            bool inside = down < (is_a ? m : k) && across < (is_a ? k : n);
            const float *from = inside ? (is_a ? a : b) + down * (is_a ? k : n) + across : a;
            u32 to = (u32)__cvta_generic_to_shared(is_a ? &tile_a[buffer][r][s] : &tile_b[buffer][r][s]);
            int bytes = inside ? 16 : 0;
            asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
        }
        asm volatile("cp.async.commit_group;");
    };
    float sum = 0;
    bring(0, 0);
    for (int base = 0, buffer = 0; base < k; base += 16, buffer ^= 1) {
        if (base + 16 < k) bring(buffer ^ 1, base + 16);
        else asm volatile("cp.async.commit_group;");
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        __syncthreads();
        for (int s = 0; s < 16; s++) sum += tile_a[buffer][ty][s] * tile_b[buffer][s][tx];
        __syncthreads();
    }
    if (row < m && column < n) c[row * n + column] = sum;
}
