// Layers of networks and what training needs of them. A block a row unless said otherwise; blocks of whole warps.

__device__ float block_sum(float v)
{
    __shared__ float parts[32];
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0;
    for (int w = 0; w < blockDim.x / 32; w++) sum += parts[w];
    return sum;
}

__device__ float block_max(float v)
{
    __shared__ float parts[32];
    for (int step = 16; step; step /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    float most = parts[0];
    for (int w = 1; w < blockDim.x / 32; w++) most = fmaxf(most, parts[w]);
    return most;
}

// By the root of the mean square.
extern "C" __global__ void rms_norm(const float *x, const float *gain, float *y, int columns, float epsilon)
{
    x += blockIdx.x * columns;
    y += blockIdx.x * columns;
    float square = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) square += x[i] * x[i];
    float scale = rsqrtf(block_sum(square) / columns + epsilon);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) y[i] = x[i] * scale * gain[i];
}

// Groups of channels of a picture; blockIdx.x is the group, blockIdx.y the picture.
extern "C" __global__ void group_norm(const float *x, const float *gain, const float *bias, float *y, int channels,
                                      int groups, int points, float epsilon)
{
    int width = channels / groups, size = width * points;
    int start = (blockIdx.y * channels + blockIdx.x * width) * points;
    float sum = 0, square = 0;
    for (int i = threadIdx.x; i < size; i += blockDim.x) sum += x[start + i];
    float mean = block_sum(sum) / size;
    for (int i = threadIdx.x; i < size; i += blockDim.x) square += (x[start + i] - mean) * (x[start + i] - mean);
    float scale = rsqrtf(block_sum(square) / size + epsilon);
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        int channel = blockIdx.x * width + i / points;
        y[start + i] = (x[start + i] - mean) * scale * gain[channel] + bias[channel];
    }
}

// The gradient before a softmax from that behind it.
extern "C" __global__ void softmax_gradient(const float *y, const float *dy, float *dx, int columns)
{
    y += blockIdx.x * columns;
    dy += blockIdx.x * columns;
    float dot = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dot += y[i] * dy[i];
    dot = block_sum(dot);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dx[blockIdx.x * columns + i] = y[i] * (dy[i] - dot);
}

// Loss and gradient of a choice among classes; a negative label counts for nothing.
extern "C" __global__ void cross_entropy(const float *x, const int *labels, float *loss, float *dx, int columns)
{
    x += blockIdx.x * columns;
    dx += blockIdx.x * columns;
    int label = labels[blockIdx.x];
    if (label < 0) {
        for (int i = threadIdx.x; i < columns; i += blockDim.x) dx[i] = 0;
        if (threadIdx.x == 0) loss[blockIdx.x] = 0;
        return;
    }
    float most = -__int_as_float(0x7f800000), sum = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) most = fmaxf(most, x[i]);
    most = block_max(most);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += expf(x[i] - most);
    sum = block_sum(sum);
    for (int i = threadIdx.x; i < columns; i += blockDim.x) dx[i] = expf(x[i] - most) / sum - (i == label);
    if (threadIdx.x == 0) loss[blockIdx.x] = logf(sum) - (x[label] - most);
}

// Turns pairs by angles that grow with the place: a thread a pair, a block a place.
extern "C" __global__ void rotary(float *x, int depth, float base)
{
    int pair = threadIdx.x;
    if (pair >= depth / 2) return;
    float angle = blockIdx.x * powf(base, -2.0f * pair / depth), sine, cosine;
    sincosf(angle, &sine, &cosine);
    float2 *at = (float2 *)(x + blockIdx.x * depth) + pair, v = *at;
    *at = make_float2(v.x * cosine - v.y * sine, v.x * sine + v.y * cosine);
}

struct Rates { float step, first, second, epsilon, decay; };

// Adam with decay of the weights; the rates come as a structure.
extern "C" __global__ void adam(float *weights, const float *gradient, float *mean, float *square, Rates rates, int time,
                                int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float g = gradient[i];
        float m = mean[i] = rates.first * mean[i] + (1 - rates.first) * g;
        float s = square[i] = rates.second * square[i] + (1 - rates.second) * g * g;
        m /= 1 - powf(rates.first, (float)time);
        s /= 1 - powf(rates.second, (float)time);
        weights[i] -= rates.step * (m / (sqrtf(s) + rates.epsilon) + rates.decay * weights[i]);
    }
}

// Gradients of rows of a table: rows that occur more than once add up.
extern "C" __global__ void table_gradient(const int *places, const float *gradient, float *table, int columns)
{
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        atomicAdd(table + places[blockIdx.x] * columns + i, gradient[blockIdx.x * columns + i]);
}

// The largest k of a row in order, by k rounds of choosing; k is at most 32.
extern "C" __global__ void top(const float *x, float *values, int *places, int columns, int k)
{
    __shared__ unsigned long long best;
    x += blockIdx.x * columns;
    unsigned long long limit = ~0ull;
    for (int round = 0; round < k; round++) {
        if (threadIdx.x == 0) best = 0;
        __syncthreads();
        unsigned long long mine = 0;
        for (int i = threadIdx.x; i < columns; i += blockDim.x) {
            unsigned bits = __float_as_uint(x[i]);
            bits ^= (int)bits >> 31 | 0x80000000;
            unsigned long long key = (unsigned long long)bits << 32 | ~(unsigned)i;
            if (key < limit && key > mine) mine = key;
        }
        atomicMax(&best, mine);
        __syncthreads();
        limit = best;
        if (threadIdx.x == 0) {
            int place = ~(unsigned)limit;
            values[blockIdx.x * k + round] = x[place];
            places[blockIdx.x * k + round] = place;
        }
        __syncthreads();
    }
}
