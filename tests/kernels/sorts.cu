// Sorting in shared memory.

// A power of two of keys, any number of threads.
extern "C" __global__ void bitonic(int *data, int size)
{
    extern __shared__ int keys[];
    data += blockIdx.x * size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) keys[i] = data[i];
    for (int width = 2; width <= size; width *= 2)
        for (int step = width / 2; step; step /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < size; i += blockDim.x) {
                int other = i ^ step;
                if (other > i && (keys[i] > keys[other]) == ((i & width) == 0)) {
                    int key = keys[i];
                    keys[i] = keys[other];
                    keys[other] = key;
                }
            }
        }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += blockDim.x) data[i] = keys[i];
}

// One warp's 32 keys by exchanges between lanes; keys of 64 bits.
extern "C" __global__ void warp_bitonic(unsigned long long *data)
{
    int id = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x & 31;
    unsigned long long key = data[id];
    for (int width = 2; width <= 32; width *= 2)
        for (int step = width / 2; step; step /= 2) {
            unsigned long long other = __shfl_xor_sync(~0u, key, step);
            bool want_smaller = ((lane & step) == 0) == ((lane & width) == 0);
            if (want_smaller == (other < key)) key = other;
        }
    data[id] = key;
}

// A stable pass over four bits with values carried along: ballots count equal digits. One block of whole warps.
extern "C" __global__ void radix_pass(const unsigned *keys, const unsigned *values, unsigned *out_keys,
                                      unsigned *out_values, int n, int shift)
{
    __shared__ unsigned starts[16];
    __shared__ unsigned counts[32][16];
    int id = threadIdx.x, lane = id & 31, warp = id >> 5, warps = blockDim.x / 32;
    if (id < 16) starts[id] = 0;
    __syncthreads();
    for (int i = id; i < n; i += blockDim.x) atomicAdd(&starts[keys[i] >> shift & 15], 1u);
    __syncthreads();
    if (id == 0) {
        unsigned sum = 0;
        for (int d = 0; d < 16; d++) { unsigned count = starts[d]; starts[d] = sum; sum += count; }
    }
    __syncthreads();
    for (int base = 0; base < n; base += blockDim.x) {
        bool has = base + id < n;
        unsigned key = has ? keys[base + id] : 0, digit = key >> shift & 15;
        unsigned same = __ballot_sync(~0u, has);
        for (int bit = 0; bit < 4; bit++) {
            unsigned votes = __ballot_sync(~0u, digit >> bit & 1);
            same &= digit >> bit & 1 ? votes : ~votes;
        }
        unsigned rank = __popc(same & ((1u << lane) - 1));
        if (lane < 16) counts[warp][lane] = 0;
        __syncwarp();
        if (has && rank == 0) counts[warp][digit] = __popc(same);
        __syncthreads();
        if (has) {
            unsigned place = starts[digit] + rank;
            for (int w = 0; w < warp; w++) place += counts[w][digit];
            out_keys[place] = key;
            out_values[place] = values[base + id];
        }
        __syncthreads();
        if (id < 16) for (int w = 0; w < warps; w++) starts[id] += counts[w][id];
        __syncthreads();
    }
}

// Neighbours exchange in turns until a whole round changes nothing: the barrier says when.
extern "C" __global__ void odd_even(short *data, int n, int *rounds)
{
    extern __shared__ short row[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) row[i] = data[i];
    int round = 0, changed;
    do {
        changed = 0;
        for (int odd = 0; odd < 2; odd++) {
            __syncthreads();
            for (int i = 2 * threadIdx.x + odd; i + 1 < n; i += 2 * blockDim.x)
                if (row[i] > row[i + 1]) { short t = row[i]; row[i] = row[i + 1]; row[i + 1] = t; changed = 1; }
        }
        round++;
    } while (__syncthreads_or(changed));
    for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = row[i];
    if (threadIdx.x == 0) *rounds = round;
}
