// Running sums: the same result by four ways.

// One block; n at most its threads. Two buffers in dynamic shared memory.
extern "C" __global__ void hillis_steele(const int *in, int *out, int n)
{
    extern __shared__ int buffer[];
    int id = threadIdx.x, width = blockDim.x, now = 0;
    buffer[id] = id < n ? in[blockIdx.x * n + id] : 0;
    __syncthreads();
    for (int step = 1; step < width; step *= 2) {
        int value = buffer[now * width + id];
        if (id >= step) value += buffer[now * width + id - step];
        now ^= 1;
        buffer[now * width + id] = value;
        __syncthreads();
    }
    if (id < n) out[blockIdx.x * n + id] = buffer[now * width + id];
}

// Up and down a tree in place: exclusive, 2 * blockDim.x values (a power of two).
extern "C" __global__ void blelloch(const unsigned *in, unsigned *out)
{
    extern __shared__ unsigned tree[];
    int id = threadIdx.x, size = 2 * blockDim.x, step = 1;
    in += blockIdx.x * size;
    out += blockIdx.x * size;
    tree[2 * id] = in[2 * id];
    tree[2 * id + 1] = in[2 * id + 1];
    for (int d = size >> 1; d > 0; d >>= 1, step *= 2) {
        __syncthreads();
        if (id < d) tree[step * (2 * id + 2) - 1] += tree[step * (2 * id + 1) - 1];
    }
    if (id == 0) tree[size - 1] = 0;
    for (int d = 1; d < size; d *= 2) {
        step >>= 1;
        __syncthreads();
        if (id < d) {
            unsigned left = tree[step * (2 * id + 1) - 1];
            tree[step * (2 * id + 1) - 1] = tree[step * (2 * id + 2) - 1];
            tree[step * (2 * id + 2) - 1] += left;
        }
    }
    __syncthreads();
    out[2 * id] = tree[2 * id];
    out[2 * id + 1] = tree[2 * id + 1];
}

__device__ __forceinline__ long long warp_inclusive(long long value, int lane)
{
    for (int step = 1; step < 32; step *= 2) {
        long long other = __shfl_up_sync(~0u, value, step);
        if (lane >= step) value += other;
    }
    return value;
}

// Shuffles in warps, then across the block, tile by tile with a carry. The block is a multiple of 32.
extern "C" __global__ void shuffle_scan(const int *in, long long *out, int n)
{
    __shared__ long long sums[32];
    __shared__ long long carry;
    int id = threadIdx.x, lane = id & 31, warp = id >> 5;
    if (id == 0) carry = 0;
    for (int start = 0; start < n; start += blockDim.x) {
        long long mine = warp_inclusive(start + id < n ? in[start + id] : 0, lane);
        if (lane == 31) sums[warp] = mine;
        __syncthreads();
        if (warp == 0) sums[lane] = warp_inclusive(lane < blockDim.x / 32 ? sums[lane] : 0, lane);
        __syncthreads();
        long long before = carry + (warp ? sums[warp - 1] : 0);
        if (start + id < n) out[start + id] = before + mine;
        __syncthreads();
        if (id == blockDim.x - 1) carry = before + mine;
    }
}

// Keep what is positive, in order: ballots give each thread its place.
extern "C" __global__ void compact(const int *in, int *out, int *kept, int n)
{
    __shared__ int counts[32];
    __shared__ int base;
    int id = threadIdx.x, lane = id & 31, warp = id >> 5, warps = (blockDim.x + 31) / 32;
    if (id == 0) base = 0;
    __syncthreads();
    for (int start = 0; start < n; start += blockDim.x) {
        bool keep = start + id < n && in[start + id] > 0;
        unsigned votes = __ballot_sync(__activemask(), keep);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int place = base + __popc(votes & ((1u << lane) - 1));
        for (int w = 0; w < warp; w++) place += counts[w];
        if (keep) out[place] = in[start + id];
        __syncthreads();
        if (id == 0) for (int w = 0; w < warps; w++) base += counts[w];
        __syncthreads();
    }
    if (id == 0) *kept = base;
}
