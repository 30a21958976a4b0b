// What the threads of a warp tell each other.

// Every mode of shuffle, with segments.
extern "C" __global__ void shuffles(const int *in, int *out, int by)
{
    int id = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31, v = in[id];
    int *mine = out + 8 * id;
    mine[0] = __shfl_sync(~0u, v, by + lane);
    mine[1] = __shfl_up_sync(~0u, v, by & 31);
    mine[2] = __shfl_down_sync(~0u, v, by & 31);
    mine[3] = __shfl_xor_sync(~0u, v, by & 31);
    mine[4] = __shfl_sync(~0u, v, by, 8);
    mine[5] = __shfl_up_sync(~0u, v, 3, 16);
    mine[6] = __shfl_down_sync(~0u, v, 3, 8);
    mine[7] = __shfl_xor_sync(~0u, v, 1, 2);
}

// Even and odd lanes do different things, each with their own mask; and lanes leave one by one.
extern "C" __global__ void halves_of_warps(const int *in, int *out)
{
    int id = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31, v = in[id];
    int sum = 0;
    if (lane & 1) {
        for (int step = 2; step < 32; step *= 2) v += __shfl_xor_sync(0xaaaaaaaau, v, step);
        sum = v;
    } else {
        for (int step = 2; step < 32; step *= 2) v = max(v, __shfl_xor_sync(0x55555555u, v, step));
        sum = -v;
    }
    __syncwarp();
    out[id] = sum + __shfl_sync(~0u, sum, 31 - lane);
}

extern "C" __global__ void votes(const int *in, unsigned *out)
{
    int id = blockIdx.x * blockDim.x + threadIdx.x, v = in[id];
    unsigned *mine = out + 8 * id;
    mine[0] = __ballot_sync(~0u, v & 1);
    mine[1] = __all_sync(~0u, v > 0);
    mine[2] = __any_sync(~0u, v > 90);
    mine[3] = __match_any_sync(~0u, v % 4);
    int same;
    mine[4] = __match_all_sync(~0u, v / 100, &same);
    mine[5] = same;
    mine[6] = __match_any_sync(~0u, (unsigned long long)(v % 3) << 40);
    unsigned here;
    if (v & 2) here = __activemask(); else here = ~__activemask();
    mine[7] = here;
}

// A loop that each lane leaves at its own time; the rest vote.
extern "C" __global__ void collatz(const int *in, int *steps, unsigned *crowd, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long v = in[i];
    int count = 0;
    unsigned most = 0;
    while (v > 1) {
        v = v & 1 ? 3 * v + 1 : v / 2;
        count++;
        most = max(most, (unsigned)__popc(__activemask()));
    }
    steps[i] = count;
    crowd[i] = most;
}

// Threads that leave early do not hold up the barriers of the others.
extern "C" __global__ void early_exit(const int *limits, int *out, int rounds)
{
    __shared__ int alive;
    int id = threadIdx.x, mine = limits[id];
    if (id == 0) alive = 0;
    __syncthreads();
    for (int r = 0; r < rounds; r++) {
        if (r >= mine && id) return;  // the first thread stays to the end
        atomicAdd(&alive, 1);
        __syncthreads();
        if (id == 0) { out[r] = alive; alive = 0; }
        __syncthreads();
    }
}

// Producers and consumers on barriers of their own: half the block writes, half reads.
extern "C" __global__ void pipeline(const int *in, int *out, int rounds)
{
    __shared__ int slot[2][64];
    int id = threadIdx.x & 63;
    if (threadIdx.x < 64) {
        for (int r = 0; r < rounds; r++) {
            if (r >= 2) asm volatile("barrier.sync %0, 128;" ::"r"(3 + (r & 1)) : "memory");
            slot[r & 1][id] = in[r * 64 + id] * 2;
            asm volatile("barrier.arrive %0, 128;" ::"r"(1 + (r & 1)) : "memory");
        }
    } else {
        for (int r = 0; r < rounds; r++) {
            asm volatile("barrier.sync %0, 128;" ::"r"(1 + (r & 1)) : "memory");
            out[r * 64 + id] = slot[r & 1][63 - id];
            if (r + 2 < rounds) asm volatile("barrier.arrive %0, 128;" ::"r"(3 + (r & 1)) : "memory");
        }
    }
}

// Where a thread is.
extern "C" __global__ void identity(unsigned *out)
{
    unsigned id = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned *mine = out + 8 * (block * blockDim.x * blockDim.y * blockDim.z + id), v;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(v)); mine[0] = v;
    asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(v)); mine[1] = v;
    asm volatile("mov.u32 %0, %%lanemask_ge;" : "=r"(v)); mine[2] = v;
    asm volatile("mov.u32 %0, %%lanemask_eq;" : "=r"(v)); mine[3] = v;
    mine[4] = threadIdx.x | threadIdx.y << 10 | threadIdx.z << 20;
    mine[5] = blockIdx.x | blockIdx.y << 10 | blockIdx.z << 20;
    mine[6] = warpSize;
    mine[7] = __activemask();
}
