// Sums and extremes of many values, and barriers that count. Blocks may have any size up to 1,024.

__device__ __forceinline__ unsigned warp_mask(int lane_count)
{
    return lane_count >= 32 ? 0xffffffffu : (1u << lane_count) - 1;
}

// Shared memory tree, for any number of threads; a block adds its part with an atomic.
extern "C" __global__ void sum_tree(const int *in, long long *total, int n)
{
    extern __shared__ long long partial[];
    int id = threadIdx.x;
    long long mine = 0;
    for (int i = blockIdx.x * blockDim.x + id; i < n; i += blockDim.x * gridDim.x) mine += in[i];
    partial[id] = mine;
    __syncthreads();
    for (int count = blockDim.x; count > 1;) {
        int half = (count + 1) / 2;
        if (id + half < count) partial[id] += partial[id + half];
        __syncthreads();
        count = half;
    }
    if (id == 0) atomicAdd((unsigned long long *)total, (unsigned long long)partial[0]);
}

// Shuffles within a warp, then shared memory between warps. Three-dimensional blocks and grids. NaN never comes in.
extern "C" __global__ void sum_shuffle(const float *in, float *out, int per_block)
{
    __shared__ float warps[32];
    int threads = blockDim.x * blockDim.y * blockDim.z;
    int id = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    float mine = 0;
    for (int i = id; i < per_block; i += threads) mine += in[block * per_block + i];
    int first = id & ~31;
    unsigned mask = warp_mask(threads - first);
    for (int step = 16; step; step >>= 1) {
        float other = __shfl_down_sync(mask, mine, step);
        if ((id & 31) + step < 32 && id + step < threads) mine += other;
    }
    if ((id & 31) == 0) warps[id >> 5] = mine;
    __syncthreads();
    if (id == 0) {
        float sum = 0;
        for (int w = 0; w < (threads + 31) / 32; w++) sum += warps[w];
        out[block] = sum;
    }
}

// The largest value and the first place where it is.
extern "C" __global__ void argmax(const float *in, float *best, int *place, int n)
{
    __shared__ float values[1024];
    __shared__ int places[1024];
    int id = threadIdx.x;
    float value = -__int_as_float(0x7f800000);
    int where = 0x7fffffff;
    for (int i = id; i < n; i += blockDim.x)
        if (in[i] > value) { value = in[i]; where = i; }
    values[id] = value;
    places[id] = where;
    for (int step = 512; step; step >>= 1) {
        __syncthreads();
        if (id < step && id + step < blockDim.x) {
            float other = values[id + step];
            int there = places[id + step];
            if (other > values[id] || (other == values[id] && there < places[id])) {
                values[id] = other;
                places[id] = there;
            }
        }
    }
    if (id == 0) { *best = values[0]; *place = places[0]; }
}

// How many, whether all, whether any: the barriers that return what the block thinks.
extern "C" __global__ void census(const int *in, int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int value = i < n ? in[i] : 0;
    int count = __syncthreads_count(value > 0);
    int all = __syncthreads_and(value != 3);
    int any = __syncthreads_or(value == 7);
    int rounds = 0;
    while (__syncthreads_or(value > 0)) { value -= 2; rounds++; }  // all threads go on while any must
    int *mine = out + 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    mine[0] = count;
    mine[1] = all;
    mine[2] = any;
    mine[3] = rounds;
}

// Integer reductions of sm_80: one instruction a warp.
extern "C" __global__ void reduce_each(const int *in, int *out)
{
    int id = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned mask = warp_mask((int)blockDim.x - (int)(threadIdx.x & ~31));
    int v = in[id];
    int *mine = out + 8 * id;
    mine[0] = __reduce_add_sync(mask, v);
    mine[1] = __reduce_min_sync(mask, v);
    mine[2] = __reduce_max_sync(mask, v);
    mine[3] = __reduce_add_sync(mask, (unsigned)v);
    mine[4] = __reduce_max_sync(mask, (unsigned)v);
    mine[5] = __reduce_and_sync(mask, (unsigned)v);
    mine[6] = __reduce_or_sync(mask, (unsigned)v);
    mine[7] = __reduce_xor_sync(mask, (unsigned)v);
}

// Welford's mean and variance, merged by shuffles of doubles (two 32-bit halves each).
extern "C" __global__ void moments(const double *in, double *out, int n)
{
    int lane = threadIdx.x;  // one warp
    double count = 0, mean = 0, square = 0;
    for (int i = lane; i < n; i += 32) {
        count += 1;
        double delta = in[blockIdx.x * n + i] - mean;
        mean += delta / count;
        square += delta * (in[blockIdx.x * n + i] - mean);
    }
    for (int step = 1; step < 32; step *= 2) {
        double c = __shfl_xor_sync(~0u, count, step), m = __shfl_xor_sync(~0u, mean, step);
        double s = __shfl_xor_sync(~0u, square, step);
        double together = count + c, delta = m - mean;
        if (together > 0) {
            mean += delta * c / together;
            square += s + delta * delta * count * c / together;
        }
        count = together;
    }
    if (lane == 0) { out[2 * blockIdx.x] = mean; out[2 * blockIdx.x + 1] = square / n; }
}
