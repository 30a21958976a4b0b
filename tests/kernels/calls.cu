// Functions that stay functions: structs by value, pointers to functions, virtual functions, barriers and warp
// operations in them, printf and assert.

// As CUDA's <assert.h> has it.
#define assert(condition) ((condition) ? (void)0 : __assertfail(#condition, "calls.cu", __LINE__, __func__, 1))

#define CALLED __noinline__ __device__

struct Complex {
    float re, im;
};

struct Wide {
    double weights[4];
    int count;
    unsigned char tag;
    short shift;
};

CALLED Complex multiply(Complex a, Complex b)
{
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

CALLED Complex power(Complex base, int exponent)
{
    Complex result = {1.0f, 0.0f};
    while (exponent > 0) {
        if (exponent & 1)
            result = multiply(result, base);
        base = multiply(base, base);
        exponent >>= 1;
    }
    return result;
}

extern "C" __global__ void powers(const float *re, const float *im, const int *exponents, float *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    Complex result = power({re[i], im[i]}, exponents[i]);
    out[2 * i] = result.re;
    out[2 * i + 1] = result.im;
}

// A struct whose address is taken: its parts are chosen by an index that is not known before.
CALLED Wide changed(Wide wide, int place, signed char by)
{
    wide.weights[place & 3] += by;
    wide.count += place;
    wide.tag ^= by;
    wide.shift -= by;
    return wide;
}

CALLED double total(const Wide *wide)
{
    double sum = wide->count + 1000.0 * wide->tag + 0.5 * wide->shift;
    for (int i = 0; i < wide->count % 4 + 1; i++)
        sum += wide->weights[i];
    return sum;
}

extern "C" __global__ void wides(double *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    Wide wide = {{1, 2, 3, 4}, i, (unsigned char)i, (short)(3 * i)};
    for (int round = 0; round < i % 5; round++)
        wide = changed(wide, i + round, (signed char)(round - 2));
    out[i] = total(&wide);
}

// Pointers to functions: a table of constants, and one that is chosen.
CALLED int add_one(int x) { return x + 1; }
CALLED int doubled(int x) { return 2 * x; }
CALLED int negated(int x) { return -x; }

typedef int (*Operation)(int);
__device__ Operation operations[3] = {add_one, doubled, negated};

extern "C" __global__ void operate(const int *which, int *values, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        values[i] = operations[which[i]](values[i]);
}

extern "C" __global__ void operate_twice(int *values, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    Operation first = i % 3 ? doubled : negated;
    for (int round = 0; round < 2; round++, first = add_one)
        values[i] = first(values[i]);
}

struct Shape {
    __device__ virtual float area() const = 0;
};

struct Square : Shape {
    float side;
    __device__ Square(float side) : side(side) {}
    CALLED float area() const override { return side * side; }
};

struct Ring : Shape {
    float outer, inner;
    __device__ Ring(float outer, float inner) : outer(outer), inner(inner) {}
    CALLED float area() const override { return 3.0f * (outer * outer - inner * inner); }
};

CALLED float measure(const Shape &shape) { return shape.area(); }

extern "C" __global__ void areas(float *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    Square square(i);
    Ring ring(i, 1.0f);
    out[i] = i % 2 ? measure(square) : measure(ring);
}

// Barriers and shuffles in functions that are called from several places, under a condition that is the same for all.
CALLED int block_sum(int value, int *cells)
{
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xFFFFFFFF, value, offset);
    if (threadIdx.x % 32 == 0)
        cells[threadIdx.x / 32] = value;
    __syncthreads();
    int sum = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++)
        sum += cells[warp];
    __syncthreads();
    return sum;
}

extern "C" __global__ void spread(const int *values, int *out, int twice)
{
    __shared__ int cells[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = block_sum(values[i], cells);
    if (twice)
        sum += block_sum(values[i] * (int)threadIdx.x, cells);
    out[i] = sum - values[i];
}

// A function that ends the thread for some of its callers.
CALLED int or_exit(int value, int limit)
{
    if (value > limit)
        asm volatile("exit;");
    return value + limit;
}

extern "C" __global__ void survivors(int *out, int limit)
{
    out[threadIdx.x] = or_exit(threadIdx.x, limit);
}

extern "C" __global__ void tell(const double *numbers, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    printf("%d|%5.2f|%-6s|%llx|%c|%%\n", i, numbers[i], i % 2 ? "odd" : "even", 0x123456789abcLL + i, 'a' + i);
    if (i == 1)
        printf(numbers[i] > 0 ? "above %u\n" : "below %u\n", 7u);
    if (i == 2)
        printf("nothing else, %*d\n", 4, printf(""));
}

extern "C" __global__ void tell_often(int rounds)
{
    for (int round = 0; round < rounds; round++)
        printf("round %d of thread %d\n", round, (int)threadIdx.x);
}

extern "C" __global__ void insist(const int *values, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    assert(values[i] < n);
}

CALLED int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

extern "C" __global__ void recursive(int *out) { out[threadIdx.x] = fibonacci(threadIdx.x); }

extern "C" __global__ void allocate(int **out) { *out = (int *)malloc(16); }
