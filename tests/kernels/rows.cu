// What networks do to rows. One block a row.

__device__ float block_sum(float value, float *scratch)
{
    __syncthreads();
    scratch[threadIdx.x] = value;
    __syncthreads();
    for (int count = blockDim.x; count > 1;) {
        int half = (count + 1) / 2;
        if (threadIdx.x + half < count) scratch[threadIdx.x] += scratch[threadIdx.x + half];
        __syncthreads();
        count = half;
    }
    return scratch[0];
}

extern "C" __global__ void layernorm(const float *x, const float *gain, const float *bias, float *y, int columns,
                                     float epsilon)
{
    extern __shared__ float scratch[];
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    float sum = 0, squares = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += x[i];
    float mean = block_sum(sum, scratch) / columns;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) squares += (x[i] - mean) * (x[i] - mean);
    float scale = rsqrtf(block_sum(squares, scratch) / columns + epsilon);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

struct Running { float top, sum; };

__device__ Running merge(Running a, Running b)
{
    Running out;
    out.top = fmaxf(a.top, b.top);
    if (out.top == -__int_as_float(0x7f800000)) { out.sum = 0; return out; }
    out.sum = a.sum * expf(a.top - out.top) + b.sum * expf(b.top - out.top);
    return out;
}

// One pass for maximum and sum together, merged in pairs.
extern "C" __global__ void softmax_online(const float *x, float *y, int columns)
{
    extern __shared__ Running merged[];
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    Running mine = {-__int_as_float(0x7f800000), 0};
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
        Running one = {x[i], 1};
        mine = merge(mine, one);
    }
    merged[threadIdx.x] = mine;
    __syncthreads();
    for (int count = blockDim.x; count > 1;) {
        int half = (count + 1) / 2;
        if (threadIdx.x + half < count) merged[threadIdx.x] = merge(merged[threadIdx.x], merged[threadIdx.x + half]);
        __syncthreads();
        count = half;
    }
    Running whole = merged[0];
    for (int i = threadIdx.x; i < columns; i += blockDim.x) y[i] = expf(x[i] - whole.top) / whole.sum;
}

// Attention by tiles of 32 keys that stay in shared memory: a thread has one query of 16 numbers.
extern "C" __global__ void attention(const float *q, const float *k, const float *v, float *out, int queries, int keys,
                                     float scale, int is_causal)
{
    __shared__ float tile_k[32][16];
    __shared__ float tile_v[32][16];
    int query = blockIdx.x * blockDim.x + threadIdx.x, head = blockIdx.y;
    q += head * queries * 16;
    out += head * queries * 16;
    k += head * keys * 16;
    v += head * keys * 16;
    float mine[16], sum[16] = {}, top = -__int_as_float(0x7f800000), weight = 0;
    for (int d = 0; d < 16; d++) mine[d] = query < queries ? q[query * 16 + d] * scale : 0;
    for (int base = 0; base < keys; base += 32) {
        __syncthreads();
        for (int i = threadIdx.x; i < 32 * 16; i += blockDim.x) {
            bool has = base + i / 16 < keys;
            tile_k[i / 16][i % 16] = has ? k[base * 16 + i] : 0;
            tile_v[i / 16][i % 16] = has ? v[base * 16 + i] : 0;
        }
        __syncthreads();
        for (int j = 0; j < 32 && base + j < keys; j++) {
            if (is_causal && base + j > query) break;
            float score = 0;
            for (int d = 0; d < 16; d++) score += mine[d] * tile_k[j][d];
            float next = fmaxf(top, score), fade = __expf(top - next), power = __expf(score - next);
            weight = weight * fade + power;
            for (int d = 0; d < 16; d++) sum[d] = sum[d] * fade + power * tile_v[j][d];
            top = next;
        }
    }
    if (query < queries)
        for (int d = 0; d < 16; d++) out[query * 16 + d] = sum[d] / weight;
}

// Activations, chosen by number: the libm of kernels.
extern "C" __global__ void activate(const float *x, float *y, int n, int which)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    switch (which) {
    case 0: v = fmaxf(v, 0); break;
    case 1: v = 1 / (1 + expf(-v)); break;
    case 2: v = tanhf(v); break;
    case 3: v = 0.5f * v * (1 + erff(v * 0.70710678f)); break;
    case 4: v = v > 20 ? v : log1pf(expf(v)); break;
    case 5: v = v > 0 ? v : expm1f(v); break;
    default: v = v / (1 + fabsf(v));
    }
    y[i] = v;
}
