// Graphs by rows of neighbours (`starts`, `targets`), and groups of points.

// Breadth first from one node, all of it in one block with its queue in shared memory; up to 1,024 nodes.
extern "C" __global__ void breadth_first(const int *starts, const int *targets, int *level, int *parent, int source, int n)
{
    __shared__ int queue[1024];
    __shared__ int tail;
    for (int i = threadIdx.x; i < n; i += blockDim.x) { level[i] = i == source ? 0 : -1; parent[i] = -1; }
    if (threadIdx.x == 0) { queue[0] = source; tail = 1; }
    __syncthreads();
    int head = 0;
    for (int depth = 1;; depth++) {
        int end = tail;
        __syncthreads();
        if (head == end) break;
        for (int i = head + threadIdx.x; i < end; i += blockDim.x) {
            int from = queue[i];
            for (int e = starts[from]; e < starts[from + 1]; e++) {
                int to = targets[e];
                if (atomicCAS(level + to, -1, depth) == -1) {
                    parent[to] = from;
                    queue[atomicAdd(&tail, 1)] = to;
                }
            }
        }
        head = end;
        __syncthreads();
    }
}

// One step of PageRank: what comes in along edges, read from the rows of the reversed graph.
extern "C" __global__ void page_rank(const int *starts, const int *sources, const int *out_degree, const double *rank,
                                     double *next, double *change, double damping, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double sum = 0;
    for (int e = starts[i]; e < starts[i + 1]; e++) sum += rank[sources[e]] / out_degree[sources[e]];
    double now = (1 - damping) / n + damping * sum;
    next[i] = now;
    atomicAdd(change, fabs(now - rank[i]));
}

// The same by pushing along edges in f32, an edge a thread.
extern "C" __global__ void push_rank(const int2 *edges, const int *out_degree, const float *rank, float *next, int count)
{
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < count; e += gridDim.x * blockDim.x)
        atomicAdd(next + edges[e].y, rank[edges[e].x] / out_degree[edges[e].x]);
}

// Shortest ways: one round over the edges; tells whether anything became shorter.
extern "C" __global__ void relax(const int2 *edges, const unsigned *lengths, unsigned *distance, int *is_changed, int count)
{
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= count) return;
    unsigned from = distance[edges[e].x];
    if (from == ~0u) return;
    unsigned through = from + lengths[e];
    if (atomicMin(distance + edges[e].y, through) > through) *is_changed = 1;
}

// Triangles: neighbours that two ends of an edge share; rows are sorted. A warp an edge, lanes search by halving.
extern "C" __global__ void triangles(const int *starts, const int *targets, const int2 *edges, unsigned long long *total,
                                     int count)
{
    int warp = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32, found = 0;
    if (warp >= count) return;
    int2 edge = edges[warp];
    for (int e = starts[edge.x] + lane; e < starts[edge.x + 1]; e += 32) {
        int low = starts[edge.y], high = starts[edge.y + 1];
        while (low < high) {
            int middle = (low + high) / 2;
            if (targets[middle] < targets[e]) low = middle + 1;
            else high = middle;
        }
        found += low < starts[edge.y + 1] && targets[low] == targets[e];
    }
    found = __reduce_add_sync(~0u, found);
    if (lane == 0) atomicAdd(total, (unsigned long long)found);
}

// A round of colouring: nodes that come first among those without a colour take the smallest that is free.
extern "C" __global__ void colour(const int *starts, const int *targets, const unsigned *weight, const int *before, int *after,
                                  int *left, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    after[i] = before[i];
    if (before[i] >= 0) return;
    unsigned long long taken = 0;
    bool is_first = true;
    for (int e = starts[i]; e < starts[i + 1]; e++) {
        int j = targets[e];
        if (before[j] >= 0) taken |= 1ull << before[j];
        else if (weight[j] > weight[i] || (weight[j] == weight[i] && j > i)) is_first = false;
    }
    if (is_first) after[i] = __ffsll((long long)~taken) - 1;
    else atomicAdd(left, 1);
}

// Every node finds the root of its tree by jumping; a block, in place.
extern "C" __global__ void find_roots(int *parent, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        volatile int *at = parent + i;
        while (*at != *(volatile int *)(parent + *at)) *at = *(volatile int *)(parent + *at);
    }
}

// All shortest ways through one more node, by tiles of 16 x 16.
extern "C" __global__ void through_node(float *distance, int k, int n)
{
    __shared__ float to[16], from[16];
    int i = blockIdx.y * 16 + threadIdx.y, j = blockIdx.x * 16 + threadIdx.x;
    if (threadIdx.x == 0 && i < n) to[threadIdx.y] = distance[i * n + k];
    if (threadIdx.y == 0 && j < n) from[threadIdx.x] = distance[k * n + j];
    __syncthreads();
    if (i < n && j < n && i != k && j != k)
        distance[i * n + j] = fminf(distance[i * n + j], to[threadIdx.y] + from[threadIdx.x]);
}

// Next centres of groups: sums in shared memory first, then one atomic a block and centre. Eight groups, three axes.
extern "C" __global__ void centres(const float *points, const unsigned char *group, float *sums, int *sizes, int n)
{
    __shared__ float kept[8][3];
    __shared__ int size[8];
    for (int i = threadIdx.x; i < 24; i += blockDim.x) kept[i / 3][i % 3] = 0;
    for (int i = threadIdx.x; i < 8; i += blockDim.x) size[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        for (int axis = 0; axis < 3; axis++) atomicAdd(&kept[group[i]][axis], points[3 * i + axis]);
        atomicAdd(&size[group[i]], 1);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 24; i += blockDim.x) atomicAdd(sums + i, kept[i / 3][i % 3]);
    for (int i = threadIdx.x; i < 8; i += blockDim.x) atomicAdd(sizes + i, size[i]);
}

// A histogram of 1,024 bins: each warp counts for itself in dynamic shared memory, in halves of a word.
extern "C" __global__ void private_histogram(const unsigned short *in, unsigned *bins, int n)
{
    extern __shared__ unsigned own[];  // 512 words a warp
    int warps = (blockDim.x + 31) / 32;
    for (int i = threadIdx.x; i < 512 * warps; i += blockDim.x) own[i] = 0;
    __syncthreads();
    unsigned *mine = own + threadIdx.x / 32 * 512;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        int bin = in[i] & 1023;
        atomicAdd(mine + bin / 2, bin & 1 ? 1u << 16 : 1u);
    }
    __syncthreads();
    for (int pair = threadIdx.x; pair < 512; pair += blockDim.x) {
        unsigned low = 0, high = 0;
        for (int w = 0; w < warps; w++) { low += own[w * 512 + pair] & 0xffff; high += own[w * 512 + pair] >> 16; }
        if (low) atomicAdd(bins + 2 * pair, low);
        if (high) atomicAdd(bins + 2 * pair + 1, high);
    }
}
