// Counts and groups by atomics.

// A histogram of its own for each warp in shared memory, added up at the end. 64 bins; blocks of up to 256 threads.
extern "C" __global__ void histogram(const unsigned char *in, unsigned *bins, int n)
{
    __shared__ unsigned own[8][64];
    for (int i = threadIdx.x; i < 8 * 64; i += blockDim.x) own[i / 64][i % 64] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&own[threadIdx.x / 32][in[i] >> 2], 1u);
    __syncthreads();
    for (int bin = threadIdx.x; bin < 64; bin += blockDim.x) {
        unsigned sum = 0;
        for (int w = 0; w < 8; w++) sum += own[w][bin];
        if (sum) atomicAdd(bins + bin, sum);
    }
}

// Each point goes to its nearest centre; sums and counts for the next centres.
extern "C" __global__ void kmeans(const float2 *points, const float2 *centres, int *assigned, float2 *sums, int *counts,
                                  int n, int k)
{
    extern __shared__ float2 kept[];
    for (int i = threadIdx.x; i < k; i += blockDim.x) kept[i] = centres[i];
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float2 p = points[i];
    float nearest = __int_as_float(0x7f800000);
    int which = 0;
    for (int c = 0; c < k; c++) {
        float dx = p.x - kept[c].x, dy = p.y - kept[c].y;
        float distance = __fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy));
        if (distance < nearest) { nearest = distance; which = c; }
    }
    assigned[i] = which;
    atomicAdd(&sums[which].x, p.x);
    atomicAdd(&sums[which].y, p.y);
    atomicAdd(counts + which, 1);
}

// One level of a breadth-first search: the frontier's neighbours that nobody has seen.
extern "C" __global__ void bfs_step(const int *starts, const int *targets, int *level, const int *frontier, int count,
                                    int *next, int *next_count, int depth)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        int from = frontier[i];
        for (int e = starts[from]; e < starts[from + 1]; e++) {
            int to = targets[e];
            if (atomicCAS(level + to, -1, depth) == -1) next[atomicAdd(next_count, 1)] = to;
        }
    }
}

// One atomic a warp instead of one a lane, whoever is there.
extern "C" __global__ void filter(const int *in, int *out, int *count, int n, int limit)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || in[i] >= limit) return;
    unsigned here = __activemask();
    int lane = threadIdx.x & 31, leader = __ffs(here) - 1, base = 0;
    if (lane == leader) base = atomicAdd(count, __popc(here));
    base = __shfl_sync(here, base, leader);
    out[base + __popc(here & ((1u << lane) - 1))] = in[i];
}

// One atomic for each distinct key in a warp.
extern "C" __global__ void group_count(const int *keys, int *counts, int *leaders, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned here = __activemask(), peers = __match_any_sync(here, keys[i]);
    int leader = __ffs(peers) - 1;
    if ((threadIdx.x & 31) == leader) {
        atomicAdd(counts + keys[i], __popc(peers));
        atomicAdd(leaders, 1);
    }
}

// A hash table with open addresses: keys are placed by compare-and-swap and values summed.
extern "C" __global__ void hash_insert(const unsigned *keys, const unsigned *values, unsigned *table_keys,
                                       unsigned *table_sums, int capacity, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned slot = keys[i] * 2654435769u % capacity;
    while (true) {
        unsigned was = atomicCAS(table_keys + slot, 0xffffffffu, keys[i]);
        if (was == 0xffffffffu || was == keys[i]) break;
        slot = (slot + 1) % capacity;
    }
    atomicAdd(table_sums + slot, values[i]);
}

// Components of a graph: labels fall to their neighbours' smallest until none does.
extern "C" __global__ void label_step(const int2 *edges, int *labels, int *is_changed, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int2 edge = edges[i];
    int a = labels[edge.x], b = labels[edge.y];
    if (a == b) return;
    int lower = min(a, b);
    if (atomicMin(labels + (a < b ? edge.y : edge.x), lower) > lower) *is_changed = 1;
}
