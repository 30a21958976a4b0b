// Sorted sequences, and scans by segments.

// Where in `a` the first `diagonal` of the merged sequence end.
__device__ int split(const int *a, int la, const int *b, int lb, int diagonal)
{
    int low = max(0, diagonal - lb), high = min(diagonal, la);
    while (low < high) {
        int middle = (low + high) / 2;
        if (a[middle] <= b[diagonal - 1 - middle]) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Two sorted sequences to one: each thread finds its piece and merges it.
extern "C" __global__ void merge(const int *a, int la, const int *b, int lb, int *out, int piece)
{
    int start = (blockIdx.x * blockDim.x + threadIdx.x) * piece;
    if (start >= la + lb) return;
    int i = split(a, la, b, lb, start), j = start - i, end = min(start + piece, la + lb);
    for (int k = start; k < end; k++) out[k] = j >= lb || (i < la && a[i] <= b[j]) ? a[i++] : b[j++];
}

// Merge sort of a block's numbers in shared memory, keys and what goes with them; stable, any size up to 1,024.
extern "C" __global__ void merge_sort(const short *keys, const int *values, short *out_keys, int *out_values, int n)
{
    __shared__ short key[2][1024];
    __shared__ int value[2][1024];
    int now = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) { key[0][i] = keys[i]; value[0][i] = values[i]; }
    for (int width = 1; width < n; width *= 2, now ^= 1) {
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            int base = i / (2 * width) * 2 * width, middle = min(base + width, n), end = min(base + 2 * width, n);
            bool is_left = i < middle;
            int low = is_left ? middle : base, high = is_left ? end : middle, from = low;
            short k = key[now][i];
            while (low < high) {
                int at = (low + high) / 2;
                if (key[now][at] < k || (!is_left && key[now][at] == k)) low = at + 1;
                else high = at;
            }
            int to = base + (is_left ? i - base : i - middle) + low - from;
            key[now ^ 1][to] = k;
            value[now ^ 1][to] = value[now][i];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) { out_keys[i] = key[now][i]; out_values[i] = value[now][i]; }
}

// Places by counting who is smaller; stable. Tiles of 64 in shared memory, one thread more than there are numbers is fine.
extern "C" __global__ void rank_sort(const float *in, float *out, int n)
{
    __shared__ float tile[64];
    int i = blockIdx.x * blockDim.x + threadIdx.x, rank = 0;
    float mine = i < n ? in[i] : 0;
    for (int base = 0; base < n; base += 64) {
        __syncthreads();
        for (int k = threadIdx.x; k < 64; k += blockDim.x) tile[k] = base + k < n ? in[base + k] : 0;
        __syncthreads();
        for (int k = 0; k < min(64, n - base); k++) rank += tile[k] < mine || (tile[k] == mine && base + k < i);
    }
    if (i < n) out[rank] = mine;
}

// The first place that is not smaller, and the first that is larger.
extern "C" __global__ void bounds(const double *sorted, int n, const double *wanted, int2 *out, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    double v = wanted[i];
    int first = 0, past = 0;
    for (int length = n; length > 0;) {
        int half = length / 2;
        if (sorted[first + half] < v) { first += half + 1; length -= half + 1; }
        else length = half;
    }
    for (int length = n; length > 0;) {
        int half = length / 2;
        if (!(v < sorted[past + half])) { past += half + 1; length -= half + 1; }
        else length = half;
    }
    out[i] = make_int2(first, past);
}

// Sums that start anew where a flag is set; warps by shuffles, then the warps' ends. One block of whole warps.
extern "C" __global__ void segmented_scan(const int *in, const unsigned char *is_start, int *out, int n)
{
    __shared__ int ends[32], flags[32];
    __shared__ int carry_sum;
    int id = threadIdx.x, lane = id & 31, warp = id >> 5;
    if (id == 0) carry_sum = 0;
    for (int base = 0; base < n; base += blockDim.x) {
        int i = base + id, sum = i < n ? in[i] : 0, flag = i < n ? is_start[i] : 0;
        for (int step = 1; step < 32; step *= 2) {
            int other = __shfl_up_sync(~0u, sum, step), there = __shfl_up_sync(~0u, flag, step);
            if (lane >= step) { sum += flag ? 0 : other; flag |= there; }
        }
        __syncthreads();
        if (lane == 31) { ends[warp] = sum; flags[warp] = flag; }
        __syncthreads();
        int before = carry_sum;
        for (int w = 0; w < warp; w++) before = flags[w] ? ends[w] : before + ends[w];
        if (!flag) sum += before;
        if (i < n) out[i] = sum;
        __syncthreads();
        if (id == blockDim.x - 1) carry_sum = sum;
    }
}

// Sums of neighbours with the same key: the last of each group writes. One block; 8 bytes of dynamic shared a thread.
extern "C" __global__ void sum_by_key(const int *keys, const int *values, int *out_keys, int *out_sums, int *groups, int n)
{
    extern __shared__ int shared[];
    int *place = shared, *sum = shared + blockDim.x, id = threadIdx.x;
    place[id] = id < n && (id == 0 || keys[id] != keys[id - 1]);
    for (int step = 1; step < blockDim.x; step *= 2) {
        __syncthreads();
        int other = id >= step ? place[id - step] : 0;
        __syncthreads();
        place[id] += other;
    }
    sum[id] = 0;
    __syncthreads();
    if (id < n) {
        int group = place[id] - 1;
        atomicAdd(sum + group, values[id]);
        out_keys[group] = keys[id];
    }
    __syncthreads();
    if (id < place[blockDim.x - 1]) out_sums[id] = sum[id];
    if (id == 0) *groups = place[blockDim.x - 1];
}

// Runs of bytes: where each starts and how long it is. One block goes over it, counting by votes.
extern "C" __global__ void runs(const unsigned char *in, int *starts, unsigned char *letters, int *count, int n)
{
    __shared__ int warps[32];
    int id = threadIdx.x, lane = id & 31, total = 0;
    for (int base = 0; base < n; base += blockDim.x) {
        int i = base + id;
        bool is_start = i < n && (i == 0 || in[i] != in[i - 1]);
        unsigned ballot = __ballot_sync(__activemask(), is_start);
        if (lane == 0) warps[id >> 5] = __popc(ballot);
        __syncthreads();
        int before = total, all = 0;
        for (int w = 0; w < (blockDim.x + 31) / 32; w++) {
            if (w < id >> 5) before += warps[w];
            all += warps[w];
        }
        if (is_start) {
            int to = before + __popc(ballot & ((1u << lane) - 1));
            starts[to] = i;
            letters[to] = in[i];
        }
        total += all;
        __syncthreads();
    }
    if (id == 0) { *count = total; starts[total] = n; }
}

// The k-th smallest, by halving the range of the numbers' bits. One block.
extern "C" __global__ void kth_smallest(const unsigned *in, unsigned *out, int k, int n)
{
    __shared__ int below;
    unsigned answer = 0;
    for (int bit = 31; bit >= 0; bit--) {
        if (threadIdx.x == 0) below = 0;
        __syncthreads();
        unsigned middle = answer | 1u << bit;
        int mine = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) mine += in[i] < middle;
        if (mine) atomicAdd(&below, mine);
        __syncthreads();
        if (below <= k) answer = middle;
        __syncthreads();
    }
    if (threadIdx.x == 0) *out = answer;
}
